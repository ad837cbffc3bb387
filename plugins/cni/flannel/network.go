package flannel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flannel-io/flannel/pkg/backend"
	"github.com/flannel-io/flannel/pkg/backend/hostgw"
	"github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/backend/wireguard"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
)

const (
	// slowSubnet is after which time without a pod CIDR the component says so.
	slowSubnet = 5 * time.Second
	// backendStop is how long a stop waits for flannel's backend, which may hang in
	// handing an event to a receiver that has gone. Its work is in the kernel already.
	backendStop = 2 * time.Second
)

// reports are the words of sdk.Host that network uses.
type reports interface {
	Ready()
	Degraded(reason string)
	NetworkReady(gateways []netip.Addr)
}

// network is one run of the component.
type network struct {
	plan   *plan
	client rest.Interface
	log    hclog.Logger
	report reports
}

// run makes the network, says so, and looks after it until ctx ends.
func (n *network) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	leases := newLeases(n.plan, n.client, n.log.Named("leases"))
	group.Go(func() error {
		leases.run(ctx)
		return nil
	})
	group.Go(func() error {
		up, err := n.up(ctx, leases)
		if err != nil {
			return ignoreStop(ctx, err)
		}
		group.Go(func() error { return runBackend(ctx, up.backend) })
		group.Go(func() error { return leases.guard(ctx, up.subnets) })
		group.Go(func() error { return ignoreStop(ctx, up.filter.guard(ctx, up.subnets)) })
		group.Go(func() error {
			return watchLinks(ctx, append(n.plan.backendLinks(), bridgeName), n.log)
		})
		group.Go(func() error { return n.prune(ctx, leases, up.subnets) })
		return nil
	})
	return group.Wait()
}

// upNetwork is what up made.
type upNetwork struct {
	mtu     int
	uplink  *backend.ExternalInterface
	subnets subnets
	backend backend.Network
	filter  *filter
	// assigned is when the pod CIDRs were there, which others assign.
	assigned time.Time
}

// up does everything up to Ready, since the node becomes Ready no sooner: what needs no
// pod CIDR at once, the rest as soon as there is one, and all of it side by side.
func (n *network) up(ctx context.Context, leases *leases) (*upNetwork, error) {
	p, started := n.plan, time.Now()
	uplink, err := p.findUplink()
	if err != nil {
		return nil, err
	}
	if leases.config, err = p.flannelConfig(uplink.Iface.MTU); err != nil {
		return nil, err
	}
	before, err := loadState(p.stateDir)
	if err != nil {
		n.log.Warn("going on without a memory of the last run", "error", err)
	}
	up := &upNetwork{uplink: uplink, mtu: p.podMTU(uplink.Iface.MTU), filter: newFilter(p, n.log)}

	steps, ctx := errgroup.WithContext(ctx)
	prepared := make(chan struct{})
	steps.Go(n.timed("packet filter", func() error {
		if before.PacketFilter != "" && before.PacketFilter != p.packetFilter {
			// The host ports of running pods stay, and go on to work.
			if err := removeRules(ctx, before.PacketFilter, nil); err != nil {
				return err
			}
		}
		if err := up.filter.prepare(ctx); err != nil {
			return err
		}
		close(prepared)
		return nil
	}))
	steps.Go(n.timed("sysctls", func() error { return setSysctls(p, uplink.IfaceName, n.log) }))
	steps.Go(n.timed("executables", func() error { return installExecutables(p.paths.CarriedCNIDir, p.paths.CNIBinDir) }))
	steps.Go(n.timed("pod CIDRs", func() (err error) {
		up.subnets, err = leases.awaitSubnets(ctx, slowSubnet, n.report.Degraded)
		if err != nil {
			return err
		}
		up.assigned = time.Now()
		return n.useSubnets(ctx, up, leases, before, steps, prepared)
	}))
	if err := steps.Wait(); err != nil {
		return nil, err
	}

	list, err := conflist(p, up.subnets, up.mtu)
	if err != nil {
		return nil, err
	}
	if err := p.makeAddressDir(); err != nil {
		return nil, err
	}
	if err := writeConflist(p.paths.CNIConfDir, list); err != nil {
		return nil, err
	}
	var gateways []netip.Addr
	for _, cidr := range up.subnets.list() {
		gateways = append(gateways, gateway(cidr).Addr())
	}
	n.report.NetworkReady(gateways)
	n.report.Ready()
	n.log.Info("the pod network is up", "backend", p.Backend, "podCIDRs", up.subnets.String(), "uplink", uplink.IfaceName,
		"mtu", up.mtu, "packetFilter", p.packetFilter, "took", time.Since(started).Round(time.Millisecond).String(),
		"podCIDRsAfter", up.assigned.Sub(started).Round(time.Millisecond).String())
	return up, nil
}

// useSubnets adds to steps what needs the pod CIDRs. The state is written down before
// anything is made.
func (n *network) useSubnets(ctx context.Context, up *upNetwork, leases *leases, before state, steps *errgroup.Group, prepared <-chan struct{}) error {
	now := stateOf(n.plan, up.subnets)
	if now.sameRules(before) {
		now.Rules = before.Rules // should the process die before they are listed again
	}
	if err := now.save(n.plan.stateDir); err != nil {
		return err
	}
	steps.Go(n.timed("masquerading", func() (err error) {
		select {
		case <-prepared:
		case <-ctx.Done(): // that failed
			return nil
		}
		if now.Rules, err = up.filter.apply(ctx, up.subnets, before); err != nil || len(now.Rules) == 0 {
			return err
		}
		return now.save(n.plan.stateDir)
	}))
	steps.Go(n.timed("bridge", func() error {
		if err := ensureBridge(n.plan, up.subnets, up.mtu, n.log); err != nil {
			return err
		}
		return keepAdvertisementsOut(bridgeName, n.log)
	}))
	steps.Go(n.timed("backend", func() (err error) {
		up.backend, err = n.register(ctx, leases, up.uplink, up.mtu)
		if err != nil || before.Backend == "" {
			return err
		}
		// Now, not when the backend runs: that one gives up on a route that vanishes
		// under its hands together with the device of an earlier backend.
		return removeLinks(state{}, append(n.plan.backendLinks(), bridgeName))
	}))
	return nil
}

// timed makes a step say in the log how long it took: the node waits for the slowest.
func (n *network) timed(what string, step func() error) func() error {
	return func() error {
		started := time.Now()
		err := step()
		n.log.Debug("step done", "step", what, "took", time.Since(started).Round(time.Millisecond/10).String(), "good", err == nil)
		return err
	}
}

// register makes the backend's interface and makes this node known to the others.
func (n *network) register(ctx context.Context, leases *leases, uplink *backend.ExternalInterface, mtu int) (backend.Network, error) {
	p := n.plan
	construct := map[string]backend.BackendCtor{
		backendVXLAN: vxlan.New, backendHostGW: hostgw.New, backendWireGuard: wireguard.New,
	}[p.Backend]
	if p.Backend == backendWireGuard {
		// flannel takes the path of the private key from the environment only.
		if err := os.Setenv("WIREGUARD_KEY_FILE", filepath.Join(p.stateDir, "wireguard.key")); err != nil {
			return nil, fmt.Errorf("choose the private key's file: %w", err)
		}
	}
	be, err := construct(leases, uplink)
	if err != nil {
		return nil, fmt.Errorf("use backend %s: %w", p.Backend, err)
	}
	// The wireguard backend removes its device when the context ends; the pods' network
	// has to outlive the process. The one request in here has a deadline of its own.
	made, err := be.RegisterNetwork(context.WithoutCancel(ctx), new(sync.WaitGroup), leases.config)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return nil, fmt.Errorf("this kernel has no %s (module %s): load or install it, or choose another backend (%s)",
			p.Backend, p.Backend, strings.Join(backends, ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("set up backend %s: %w", p.Backend, err)
	}
	for _, name := range p.backendLinks() {
		if err := markLink(name, mtu); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// runBackend serves the other nodes' leases until ctx ends.
func runBackend(ctx context.Context, made backend.Network) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		made.Run(ctx)
	}()
	select {
	case <-ended:
		if ctx.Err() == nil {
			return errors.New("flannel's backend ended by itself")
		}
	case <-ctx.Done():
		select {
		case <-ended:
		case <-time.After(backendStop):
		}
	}
	return nil
}

// ignoreStop drops an error that only says that ctx ended.
func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}
