package flannel

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/flannel-io/flannel/pkg/backend"
	"github.com/vishvananda/netlink"
)

// findUplink finds the interface that carries the packets between the nodes: the one
// that the configuration names, or the one that has the node's address.
func (p *plan) findUplink() (*backend.ExternalInterface, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	node := p.node4
	if !p.ipv4() {
		node = p.node6
	}
	var iface *net.Interface
	if p.Interface != "" {
		if iface, err = net.InterfaceByName(p.Interface); err != nil {
			return nil, fmt.Errorf("find interface %q of the configuration: %w", p.Interface, err)
		}
	} else {
		index := 0
		for _, a := range addrs {
			if addr, ok := netip.AddrFromSlice(a.IP); ok && addr.Unmap() == node {
				index = a.LinkIndex
				break
			}
		}
		if index == 0 {
			return nil, fmt.Errorf("no interface of this host has the node's address %s: "+
				"set --node-ip to one that it has, or name the interface (components: cni.flannel: interface)", node)
		}
		if iface, err = net.InterfaceByIndex(index); err != nil {
			return nil, fmt.Errorf("find the interface with the node's address %s: %w", node, err)
		}
	}
	if min := p.minMTU(); iface.MTU < min {
		return nil, fmt.Errorf("MTU %d of interface %s is too small for pods: want %d at least", iface.MTU, iface.Name, min)
	}

	uplink := &backend.ExternalInterface{Iface: iface, IfaceName: iface.Name}
	if p.ipv4() {
		uplink.ExtAddr = p.node4.AsSlice()
		uplink.IfaceAddr = addressOn(addrs, iface.Index, p.node4)
		if uplink.IfaceAddr == nil {
			return nil, fmt.Errorf("interface %s has no IPv4 address", iface.Name)
		}
	}
	if p.ipv6() {
		uplink.ExtV6Addr = p.node6.AsSlice()
		uplink.IfaceV6Addr = addressOn(addrs, iface.Index, p.node6)
		if uplink.IfaceV6Addr == nil {
			return nil, fmt.Errorf("interface %s has no IPv6 address", iface.Name)
		}
	}
	return uplink, nil
}

// minMTU is what the interface between the nodes must carry at least, so that pods get
// what RFC 791 and RFC 8200 ask of a link (IPv4: 576 in practice; IPv6: 1280).
func (p *plan) minMTU() int {
	least := 576
	if p.ipv6() {
		least = 1280
	}
	if p.MTU != 0 {
		return 0 // the user knows
	}
	return least + (1500 - p.podMTU(1500))
}

// addressOn returns want if the interface has it, else its first global address of the
// same family, else nil.
func addressOn(addrs []netlink.Addr, index int, want netip.Addr) net.IP {
	var first net.IP
	for _, a := range addrs {
		addr, ok := netip.AddrFromSlice(a.IP)
		if addr = addr.Unmap(); !ok || a.LinkIndex != index || addr.Is4() != want.Is4() {
			continue
		}
		if addr == want {
			return addr.AsSlice()
		}
		if first == nil && addr.IsGlobalUnicast() {
			first = addr.AsSlice()
		}
	}
	return first
}
