package nftables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forget has the connections of released addresses forgotten, in the background: an established
// one passes whatever the policies say, and would be whoever's who gets the address next.
func (l *loop) forget(ctx context.Context) {
	if l.forgetting || len(l.engine.released) == 0 {
		return
	}
	addrs := l.engine.released
	l.engine.released, l.forgetting = nil, true
	l.tasks.Go(func() {
		err := forgetConnections(addrs)
		if err != nil && ctx.Err() == nil {
			l.log.Warn("connections of addresses that were given back may pass policies until they time out", "error", err)
		}
		l.changes.add(func(*engine) { l.forgetting = false })
	})
}

// ofAddresses matches the connections that have one of the addresses at either end, before or after a
// translation.
type ofAddresses []netip.Addr

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (a ofAddresses) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for _, ip := range [][]byte{flow.Forward.SrcIP, flow.Forward.DstIP, flow.Reverse.SrcIP, flow.Reverse.DstIP} {
		if addr, ok := netip.AddrFromSlice(ip); ok && slices.Contains(a, addr.Unmap()) {
			return true
		}
	}
	return false
}

// forgetConnections deletes the conntrack entries of addresses. The kernel gives all entries of a
// family for it, so one call for many addresses costs as much as for one.
func forgetConnections(addrs []netip.Addr) error {
	var failed error
	for _, f := range []struct {
		is4  bool
		kind netlink.InetFamily
	}{{true, unix.AF_INET}, {false, unix.AF_INET6}} {
		own := slices.DeleteFunc(slices.Clone(addrs), func(addr netip.Addr) bool { return addr.Is4() != f.is4 })
		if len(own) == 0 {
			continue
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, f.kind, ofAddresses(own)); err != nil {
			failed = errors.Join(failed, fmt.Errorf("delete the conntrack entries of %d addresses: %w", len(own), err))
		}
	}
	return failed
}
