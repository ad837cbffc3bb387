package harness

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Route sends packets of the switch's namespace for some addresses to a host, as a neighbour does
// that knows the way to its pods, until the returned function is called.
func (s *Switch) Route(to netip.Prefix, via *Host) (remove func() error, err error) {
	route := &netlink.Route{
		Dst: &net.IPNet{IP: to.Masked().Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())},
		Gw:  via.Addr.AsSlice(), LinkIndex: s.bridge.Attrs().Index,
	}
	if err := s.handle.RouteAdd(route); err != nil {
		return nil, fmt.Errorf("route %s to host %s: %w", to, via.Name, err)
	}
	return func() error { return s.handle.RouteDel(route) }, nil
}
