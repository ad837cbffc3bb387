package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// host is what the agent has to know or make of the machine before the kubelet and kube-proxy
// start. Each field is valid once its channel is closed.
type host struct {
	filter     PacketFilter
	filterDone chan struct{}

	endpoint    string // of the container runtime
	runtimeDone chan struct{}

	resolvConf   string
	preparedDone chan struct{} // resolvConf, directories, cgroups
}

// prepareHost starts everything that needs neither the API nor each other.
func (a *Agent) prepareHost(ctx context.Context, g *errgroup.Group) *host {
	h := &host{
		filterDone:   make(chan struct{}),
		runtimeDone:  make(chan struct{}),
		preparedDone: make(chan struct{}),
	}
	log := a.opts.Logger
	g.Go(func() error {
		h.filter = a.opts.PacketFilter
		if h.filter.Mode == "" {
			h.filter = DetectPacketFilter(ctx)
		}
		log.Info("packet filter chosen", "mode", h.filter.Mode, "reason", h.filter.Reason)
		close(h.filterDone)
		return nil
	})
	g.Go(func() (err error) {
		if h.endpoint, err = a.opts.Runtime(ctx); err != nil {
			return fmt.Errorf("container runtime: %w", err)
		}
		close(h.runtimeDone)
		return nil
	})
	g.Go(func() (err error) {
		prepareKernel(ctx, log)
		if h.resolvConf = a.opts.ResolvConf; h.resolvConf == "" {
			if h.resolvConf, err = ResolvConf(a.opts.DataDir, log); err != nil {
				return err
			}
		}
		if err := ensureCgroupRoot(a.opts.CgroupRoot); err != nil {
			return err
		}
		if err := checkKernelSettings(); err != nil {
			return err
		}
		close(h.preparedDone)
		return nil
	})
	return h
}

// HostIPs is the address that a node uses when nobody names one: that of the interface with
// the default route, else the first global one of an interface that is up, IPv4 preferred.
func HostIPs() ([]netip.Addr, error) {
	if ip, err := utilnet.ChooseHostInterface(); err == nil {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			return []netip.Addr{addr.Unmap()}, nil
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("find the node's address: %w", err)
	}
	var v6 []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("find the node's address: %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil || !prefix.Addr().IsGlobalUnicast() {
				continue
			}
			if prefix.Addr().Is4() {
				return []netip.Addr{prefix.Addr()}, nil
			}
			v6 = append(v6, prefix.Addr())
		}
	}
	if len(v6) > 0 {
		return v6[:1], nil
	}
	return nil, errors.New("find the node's address: no interface that is up has one: name an address with --node-ip")
}
