package flannel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
)

const (
	// bridgeName is where the pods of a node hang; the name that everyone knows.
	bridgeName = "cni0"
	// linkAlias marks the interfaces that this component made, for Cleanup and for
	// people (`ip link` shows it).
	linkAlias = "k3m cni.flannel"
)

// ensureBridge makes cni0 as the bridge plugin would for the first pod, with the gateway
// addresses of s, or adopts the one that is there. It changes nothing on a bridge that is
// as it should be, so running pods don't notice.
func ensureBridge(p *plan, s subnets, mtu int, log hclog.Logger) error {
	bridge, err := addBridge(mtu)
	if err != nil {
		return err
	}
	if err := ensureGateways(p, s, bridge, log); err != nil {
		return err
	}
	attrs := bridge.Attrs()
	if attrs.MTU != mtu {
		log.Info("changing the bridge's MTU", "bridge", bridgeName, "from", attrs.MTU, "to", mtu)
		if err := netlink.LinkSetMTU(bridge, mtu); err != nil {
			return fmt.Errorf("set MTU %d on %s: %w", mtu, bridgeName, err)
		}
	}
	if attrs.Alias != linkAlias {
		if err := netlink.LinkSetAlias(bridge, linkAlias); err != nil {
			return fmt.Errorf("mark %s: %w", bridgeName, err)
		}
	}
	// A bridge whose MAC address was never set takes the lowest of its ports', and
	// changes it as pods come and go. Setting the one that it has pins it.
	if err := netlink.LinkSetHardwareAddr(bridge, attrs.HardwareAddr); err != nil {
		return fmt.Errorf("pin the MAC address of %s: %w", bridgeName, err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set %s up: %w", bridgeName, err)
	}
	return nil
}

// addBridge returns cni0, made if it is missing.
func addBridge(mtu int) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = bridgeName, mtu
	err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		return nil, fmt.Errorf("create bridge %s: %w", bridgeName, err)
	}
	link, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return nil, fmt.Errorf("find bridge %s: %w", bridgeName, err)
	}
	if _, ok := link.(*netlink.Bridge); !ok {
		return nil, fmt.Errorf("interface %s exists and is a %s, not a bridge: rename or remove it", bridgeName, link.Type())
	}
	return link, nil
}

// ensureGateways gives the bridge the gateway of each subnet, and takes away old ones:
// those in the cluster's ranges, which a changed pod CIDR leaves behind. Other addresses
// mean that the bridge is someone else's.
func ensureGateways(p *plan, s subnets, bridge netlink.Link, log hclog.Logger) error {
	addrs, err := netlink.AddrList(bridge, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", bridgeName, err)
	}
	missing := map[netip.Prefix]bool{}
	for _, cidr := range s.list() {
		missing[gateway(cidr)] = true
	}
	for _, a := range addrs {
		have := prefixOf(a.IPNet)
		switch {
		case missing[have]:
			delete(missing, have)
		case have.Addr().IsLinkLocalUnicast():
		case contains(p.cluster4, have.Addr()) || contains(p.cluster6, have.Addr()) || bridge.Attrs().Alias == linkAlias:
			log.Warn("removing an address of an earlier pod CIDR", "bridge", bridgeName, "address", have.String())
			if err := netlink.AddrDel(bridge, &a); err != nil {
				return fmt.Errorf("remove address %s from %s: %w", have, bridgeName, err)
			}
		default:
			return fmt.Errorf("bridge %s exists with address %s, which is not of this cluster: "+
				"if nothing uses it any more, remove it (ip link delete %s)", bridgeName, have, bridgeName)
		}
	}
	for address := range missing {
		addr := &netlink.Addr{IPNet: ipNet(address)}
		if address.Addr().Is6() {
			// Without a port there is no carrier, and duplicate address detection
			// would not end before the first pod.
			addr.Flags = syscall.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(bridge, addr); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("give %s the address %s: %w", bridgeName, address, err)
		}
	}
	return nil
}

// markLink sets the alias on a link that a backend made, and its MTU, which flannel
// leaves as it was on one that exists.
func markLink(name string, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s of the backend: %w", name, err)
	}
	if link.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("set MTU %d on %s: %w", mtu, name, err)
		}
	}
	if link.Attrs().Alias == linkAlias {
		return nil
	}
	if err := netlink.LinkSetAlias(link, linkAlias); err != nil {
		return fmt.Errorf("mark %s: %w", name, err)
	}
	return nil
}

// backendLinks are the interfaces that the plan's backend makes (flannel fixes the
// names); none for host-gw.
func (p *plan) backendLinks() []string {
	name4, name6 := "", ""
	switch p.Backend {
	case backendVXLAN:
		name4, name6 = fmt.Sprintf("flannel.%d", p.VNI), fmt.Sprintf("flannel-v6.%d", p.VNI)
	case backendWireGuard:
		name4, name6 = "flannel-wg", "flannel-wg-v6"
	default:
		return nil
	}
	var names []string
	if p.ipv4() {
		names = append(names, name4)
	}
	if p.ipv6() {
		names = append(names, name6)
	}
	return names
}

func contains(p netip.Prefix, addr netip.Addr) bool { return p.IsValid() && p.Contains(addr) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones)
}
