package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	utilsysctl "k8s.io/component-helpers/node/util/sysctl"
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
		if err := checkKernelSettings(utilsysctl.New(), a.opts.ProtectKernelDefaults); err != nil {
			return err
		}
		close(h.preparedDone)
		return nil
	})
	return h
}

// HostIPs are the addresses that a node uses when nobody names any: of each family (true stands
// for IPv4) that of the interface with the default route, else the first global one of an
// interface that is up.
func HostIPs(is4 ...bool) ([]netip.Addr, error) {
	var ips []netip.Addr
	for _, is4 := range is4 {
		ip, err := hostIP(is4)
		if err != nil {
			return nil, err
		}
		ips = append(ips, ip)
	}
	return ips, nil
}

func hostIP(is4 bool) (netip.Addr, error) {
	family, unspecified := "IPv6", net.IPv6unspecified
	if is4 {
		family, unspecified = "IPv4", net.IPv4zero
	}
	if ip, err := utilnet.ResolveBindAddress(unspecified); err == nil {
		if addr, ok := netip.AddrFromSlice(ip); ok && addr.Unmap().Is4() == is4 {
			return addr.Unmap(), nil
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the node's address: %w", err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return netip.Addr{}, fmt.Errorf("find the node's address: %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && prefix.Addr().IsGlobalUnicast() && prefix.Addr().Is4() == is4 {
				return prefix.Addr(), nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("find the node's address: no interface that is up has one of %s: name an address with --node-ip", family)
}
