package flannel

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/subnet"

	"github.com/k3m-io/k3m/sdk"
)

// Bytes that a backend's headers take from the MTU of the interface between the nodes:
// outer Ethernet, IP, UDP and vxlan header; IP, UDP and WireGuard's own (60, or 80 over
// IPv6; flannel always takes 80 away).
const (
	vxlanOverhead     = 50
	vxlanOverheadIPv6 = 70
	wireGuardOverhead = 80
	// flannelVXLANOverhead is what flannel's vxlan backend takes away, over IPv6 too.
	flannelVXLANOverhead = 50
)

// plan is all that is known before the node's subnet is: the facts and the
// configuration, checked against each other.
type plan struct {
	config
	nodeName string
	// node4, node6 are the node's addresses; cluster4, cluster6 the cluster's pod
	// ranges. A family is on when its cluster range is valid; its node address then
	// is too.
	node4, node6       netip.Addr
	cluster4, cluster6 netip.Prefix
	packetFilter       sdk.PacketFilter
	paths              sdk.Paths
	stateDir           string
}

// newPlan checks the facts. stateDir is the component's own.
func newPlan(cfg config, facts sdk.Facts, stateDir string) (*plan, error) {
	p := &plan{
		config:       cfg,
		nodeName:     facts.NodeName,
		packetFilter: facts.PacketFilter,
		paths:        facts.Paths,
		stateDir:     stateDir,
	}
	for _, cidr := range facts.ClusterCIDRs {
		target := &p.cluster4
		if cidr.Addr().Is6() {
			target = &p.cluster6
		}
		if target.IsValid() {
			return nil, fmt.Errorf("two cluster CIDRs of one family, %s and %s: flannel takes one of IPv4 and one of IPv6", *target, cidr)
		}
		*target = cidr.Masked()
	}
	if !p.cluster4.IsValid() && !p.cluster6.IsValid() {
		return nil, errors.New("no cluster CIDR: the server that this node belongs to says none")
	}
	for _, addr := range facts.NodeIPs {
		addr = addr.Unmap()
		if addr.Is4() && !p.node4.IsValid() {
			p.node4 = addr
		} else if addr.Is6() && !p.node6.IsValid() {
			p.node6 = addr
		}
	}
	if p.cluster4.IsValid() && !p.node4.IsValid() {
		return nil, fmt.Errorf("cluster CIDR %s is IPv4, but the node has no IPv4 address: give it one with --node-ip", p.cluster4)
	}
	if p.cluster6.IsValid() && !p.node6.IsValid() {
		return nil, fmt.Errorf("cluster CIDR %s is IPv6, but the node has no IPv6 address: give it one with --node-ip", p.cluster6)
	}
	if p.packetFilter != sdk.NFTables && p.packetFilter != sdk.IPTables {
		return nil, fmt.Errorf("unknown packet filter %q: want %s or %s", p.packetFilter, sdk.NFTables, sdk.IPTables)
	}
	return p, nil
}

func (p *plan) ipv4() bool { return p.cluster4.IsValid() }
func (p *plan) ipv6() bool { return p.cluster6.IsValid() }

// podMTU is the MTU of the pods' interfaces over an uplink with the given one.
func (p *plan) podMTU(uplink int) int {
	switch {
	case p.MTU != 0:
		return p.MTU
	case p.Backend == backendWireGuard:
		return uplink - wireGuardOverhead
	case p.Backend == backendVXLAN && p.ipv6():
		return uplink - vxlanOverheadIPv6
	case p.Backend == backendVXLAN:
		return uplink - vxlanOverhead
	default:
		return uplink
	}
}

// flannelConfig is the plan in flannel's words, for its backends and traffic managers.
func (p *plan) flannelConfig(uplinkMTU int) (*subnet.Config, error) {
	settings := map[string]any{"Type": p.Backend}
	switch p.Backend {
	case backendVXLAN:
		settings["VNI"] = p.VNI
		settings["Port"] = p.Port
		settings["MTU"] = p.podMTU(uplinkMTU) + flannelVXLANOverhead
	case backendWireGuard:
		settings["ListenPort"] = p.Port
		settings["ListenPortV6"] = p.Port + 1
		settings["MTU"] = p.podMTU(uplinkMTU) + wireGuardOverhead
	}
	raw, err := json.Marshal(settings)
	if err != nil {
		return nil, fmt.Errorf("encode backend settings: %w", err)
	}
	return &subnet.Config{
		EnableIPv4:     p.ipv4(),
		EnableIPv6:     p.ipv6(),
		EnableNFTables: p.packetFilter == sdk.NFTables,
		Network:        ip4Net(p.cluster4),
		IPv6Network:    ip6Net(p.cluster6),
		BackendType:    p.Backend,
		Backend:        raw,
	}, nil
}

// checkSubnets says whether the node's pod CIDRs fit the plan.
func (p *plan) checkSubnets(s subnets) error {
	for _, family := range []struct {
		cluster, own netip.Prefix
		name         string
	}{{p.cluster4, s.v4, "IPv4"}, {p.cluster6, s.v6, "IPv6"}} {
		switch {
		case !family.cluster.IsValid():
		case !family.own.IsValid():
			return fmt.Errorf("node %s has no %s pod CIDR, but the cluster CIDR %s asks for one", p.nodeName, family.name, family.cluster)
		case !family.cluster.Contains(family.own.Addr()) || family.cluster.Bits() > family.own.Bits():
			return fmt.Errorf("pod CIDR %s of node %s is outside the cluster CIDR %s: remove the Node object, so that the node registers anew", family.own, p.nodeName, family.cluster)
		}
	}
	return nil
}

// subnets are a node's pod CIDRs; an invalid one is absent.
type subnets struct{ v4, v6 netip.Prefix }

// parseSubnets reads node.spec.podCIDRs.
func parseSubnets(podCIDRs []string) (subnets, error) {
	var s subnets
	for _, text := range podCIDRs {
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return subnets{}, fmt.Errorf("parse pod CIDR: %w", err)
		}
		target := &s.v4
		if cidr.Addr().Is6() {
			target = &s.v6
		}
		if target.IsValid() {
			return subnets{}, fmt.Errorf("two pod CIDRs of one family: %s", strings.Join(podCIDRs, ", "))
		}
		*target = cidr.Masked()
	}
	return s, nil
}

// list gives those that are there, IPv4 first.
func (s subnets) list() []netip.Prefix {
	var list []netip.Prefix
	for _, cidr := range []netip.Prefix{s.v4, s.v6} {
		if cidr.IsValid() {
			list = append(list, cidr)
		}
	}
	return list
}

func (s subnets) String() string {
	var texts []string
	for _, cidr := range s.list() {
		texts = append(texts, cidr.String())
	}
	return strings.Join(texts, ", ")
}

// gateway is the bridge's address in cidr: the first one, as host-local and the bridge
// plugin count.
func gateway(cidr netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(cidr.Masked().Addr().Next(), cidr.Bits())
}

// ip4Net is flannel's form of an IPv4 prefix; its Empty() is true for an invalid one.
func ip4Net(p netip.Prefix) ip.IP4Net {
	if !p.IsValid() {
		return ip.IP4Net{}
	}
	return ip.IP4Net{IP: ip.FromIP(p.Addr().AsSlice()), PrefixLen: uint(p.Bits())}
}

// ip6Net is flannel's form of an IPv6 prefix; its Empty() is true for an invalid one.
func ip6Net(p netip.Prefix) ip.IP6Net {
	if !p.IsValid() {
		return ip.IP6Net{}
	}
	return ip.IP6Net{IP: ip.FromIP6(p.Addr().AsSlice()), PrefixLen: uint(p.Bits())}
}
