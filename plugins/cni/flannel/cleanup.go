package flannel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"github.com/k3m-io/k3m/sdk"
)

// Cleanup implements sdk.Cleaner: it removes the interfaces that this component made,
// its routes and rules, its files in the CNI directories, and the record of taken pod
// addresses. It goes on after an error and returns all of them. Running pods lose their
// network.
func (*plugin) Cleanup(ctx context.Context, host *sdk.Host) error {
	if err := ensurePath(); err != nil {
		return err
	}
	paths := host.Facts().Paths
	st, err := loadState(host.StateDir())
	errs := []error{err}
	errs = append(errs, removeFile(filepath.Join(paths.CNIConfDir, conflistName)))
	for _, name := range executables {
		errs = append(errs, removeInstalled(filepath.Join(paths.CarriedCNIDir, name), filepath.Join(paths.CNIBinDir, name)))
	}
	// Without a memory, both: the tools say quickly that there is nothing.
	for _, filter := range []sdk.PacketFilter{sdk.NFTables, sdk.IPTables} {
		if st.PacketFilter == "" || st.PacketFilter == filter {
			errs = append(errs, removeRules(ctx, filter))
		}
	}
	errs = append(errs, removeRoutes(st.ClusterCIDRs, st.PodCIDRs, nil), removeLinks(st, nil))
	if paths.AgentDir != "" {
		p := plan{paths: paths}
		errs = append(errs, os.RemoveAll(filepath.Join(p.addressDir(), networkName)))
		// Only when empty: another network's records may be there.
		_ = os.Remove(p.addressDir())
	}
	errs = append(errs, removeFile(statePath(host.StateDir())), removeFile(filepath.Join(host.StateDir(), "wireguard.key")))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the pod network: %w", err)
	}
	return nil
}

// prune removes what an earlier run left and this one has no use for, once it is known
// what this one has use for: routes of nodes that went while nobody looked, interfaces
// of another backend.
func (n *network) prune(ctx context.Context, leases *leases, s subnets) error {
	select {
	case <-leases.synced():
	case <-ctx.Done():
		return nil
	}
	cluster := stateOf(n.plan, s).ClusterCIDRs
	err := removeRoutes(cluster, s.list(), leases.current)
	err = errors.Join(err, removeLinks(state{}, append(n.plan.backendLinks(), bridgeName)))
	if err != nil {
		n.log.Warn("can't remove what an earlier run left", "error", err)
	}
	return nil
}

// removeRoutes removes the routes to other nodes' subnets: those within the cluster's
// ranges, of the same size as the node's own, over a gateway. If keep is given, those of
// its leases stay; it is called after the routes have been listed, so that a route that
// comes meanwhile is either not listed or kept.
func removeRoutes(cluster, own []netip.Prefix, keep func() []lease.Lease) error {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL,
		&netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	kept := map[string]bool{}
	if keep != nil {
		for _, l := range keep() {
			kept[l.Subnet.String()], kept[l.IPv6Subnet.String()] = true, true
		}
	}
	var errs []error
	for _, route := range routes {
		if route.Dst == nil || route.Gw == nil {
			continue
		}
		to := prefixOf(route.Dst)
		within := func(p netip.Prefix) bool { return p.Contains(to.Addr()) && p.Bits() <= to.Bits() }
		likeOwn := func(p netip.Prefix) bool { return p.Addr().Is4() == to.Addr().Is4() && p.Bits() == to.Bits() }
		if !slices.ContainsFunc(cluster, within) || !slices.ContainsFunc(own, likeOwn) || kept[to.String()] {
			continue
		}
		if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route to %s: %w", to, err))
		}
	}
	return errors.Join(errs...)
}

// removeLinks removes the interfaces that are marked as this component's, except those
// in keep. If st remembers a run, those of its names count too, for it may have been
// killed before it could mark them.
func removeLinks(st state, keep []string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, link := range links {
		attrs := link.Attrs()
		named := attrs.Name == bridgeName && link.Type() == "bridge" ||
			strings.HasPrefix(attrs.Name, "flannel") && link.Type() == st.Backend
		if slices.Contains(keep, attrs.Name) || attrs.Alias != linkAlias && (st.Backend == "" || !named) {
			continue
		}
		var notFound netlink.LinkNotFoundError
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) && !errors.As(err, &notFound) {
			errs = append(errs, fmt.Errorf("remove interface %s: %w", attrs.Name, err))
		}
	}
	return errors.Join(errs...)
}

// removeRules removes flannel's rules of one packet filter. The tool may be missing.
func removeRules(ctx context.Context, filter sdk.PacketFilter) error {
	if filter == sdk.NFTables {
		return removeTables(ctx)
	}
	// Not flannel's own CleanUp: that leaves the jumps, which keep the chains alive.
	var errs []error
	for _, family := range []iptables.Protocol{iptables.ProtocolIPv4, iptables.ProtocolIPv6} {
		tool, err := iptables.New(iptables.IPFamily(family), iptables.Timeout(iptablesWait))
		if err != nil {
			continue
		}
		for _, at := range iptablesChains {
			errs = append(errs, removeChain(tool, at.table, at.hook, at.chain))
		}
	}
	return errors.Join(errs...)
}

// removeChain removes a chain and what jumps to it from hook.
func removeChain(tool *iptables.IPTables, table, hook, chain string) error {
	lines, err := tool.List(table, hook)
	if err != nil {
		return nil // no such table in this kernel
	}
	var errs []error
	for i := len(lines) - 1; i > 0; i-- { // the first line is the chain's policy
		if strings.HasSuffix(lines[i], "-j "+chain) {
			errs = append(errs, tool.DeleteById(table, hook, i))
		}
	}
	if exists, err := tool.ChainExists(table, chain); err == nil && exists {
		errs = append(errs, tool.ClearAndDeleteChain(table, chain))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove iptables chain %s: %w", chain, err)
	}
	return nil
}

// removeTables removes flannel's nftables tables.
func removeTables(ctx context.Context) error {
	var errs []error
	for table, family := range nftTables {
		nft, err := knftables.New(knftables.Family(family), table)
		if err != nil {
			return nil // no nftables here: no rules either
		}
		tx := nft.NewTransaction()
		tx.Add(&knftables.Table{}) // so that there is one to delete
		tx.Delete(&knftables.Table{})
		if err := nft.Run(ctx, tx); err != nil {
			errs = append(errs, fmt.Errorf("remove nftables table %s: %w", table, err))
		}
	}
	return errors.Join(errs...)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
