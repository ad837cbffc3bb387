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

	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/sdk"
)

// Cleanup implements sdk.Cleaner: it removes the interfaces that this component made,
// its routes and rules, its files in the CNI directories, and the record of taken pod
// addresses. It goes on after an error and returns all of them.
//
// Pods that still run lose their network. The executables and the record stay as long as
// there are any, for without them the runtime could not remove these pods.
func (*plugin) Cleanup(ctx context.Context, host *sdk.Host) error {
	if err := ensurePath(); err != nil {
		return err
	}
	paths := host.Facts().Paths
	for _, dir := range []string{paths.AgentDir, paths.CNIConfDir, paths.CNIBinDir} {
		if !filepath.IsAbs(dir) { // it would be under the process's own directory
			return fmt.Errorf("the host gives no absolute path (%q) of a directory to clean up", dir)
		}
	}
	st, err := loadState(host.StateDir())
	errs := []error{err}
	errs = append(errs, removeFile(filepath.Join(paths.CNIConfDir, conflistName)))
	if records := filepath.Join((&plan{paths: paths}).addressDir(), networkName); !anyAddress(records) {
		for _, name := range executables {
			errs = append(errs, removeInstalled(filepath.Join(paths.CarriedCNIDir, name), filepath.Join(paths.CNIBinDir, name)))
		}
		errs = append(errs, os.RemoveAll(records))
		_ = os.Remove(filepath.Dir(records)) // if there are no other network's records in it
	}
	// Without a memory, both: the tools say quickly that there is nothing.
	for _, filter := range []sdk.PacketFilter{sdk.NFTables, sdk.IPTables} {
		if st.PacketFilter == "" || st.PacketFilter == filter {
			errs = append(errs, removeRules(ctx, filter, st.PodCIDRs))
		}
	}
	errs = append(errs, removeRoutes(st.ClusterCIDRs, st.PodCIDRs, nil), removeLinks(st, nil))
	errs = append(errs, removeFile(statePath(host.StateDir())), removeFile(filepath.Join(host.StateDir(), "wireguard.key")))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the pod network: %w", err)
	}
	return nil
}

// anyAddress says whether host-local's records in dir have an address that is taken: a
// file whose name it is.
func anyAddress(dir string) bool {
	entries, _ := os.ReadDir(dir)
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		_, err := netip.ParseAddr(e.Name())
		return err == nil
	})
}

// prune removes the routes of nodes that went while nobody looked, once all nodes that
// there are have been seen.
func (n *network) prune(ctx context.Context, leases *leases, s subnets) error {
	select {
	case <-leases.synced():
	case <-ctx.Done():
		return nil
	}
	if err := removeRoutes(stateOf(n.plan, s).ClusterCIDRs, s.list(), leases.current); err != nil {
		n.log.Warn("routes of nodes that are gone stay behind", "error", err)
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

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
