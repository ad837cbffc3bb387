package clustercomponents

import (
	"net/netip"
	"slices"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// mayHave says whether an address is a node's own. Pod addresses are handed out by the
// controller-manager, and a node has those of its range. Its other addresses are what its kubelet
// says, so where two nodes say the same, the one that was there first has it: a node can't draw
// another's traffic to itself. The same goes for ranges, which should not overlap.
func mayHave(nodes map[string]nodeFacts, node string, address netip.Addr) bool {
	own := nodes[node]
	contains := func(cidr netip.Prefix) bool { return cidr.Contains(address) }
	inRange := slices.ContainsFunc(own.podCIDRs, contains)
	if !inRange && !slices.Contains(own.addresses, address) {
		return false
	}
	for name, other := range nodes {
		if name == node {
			continue
		}
		isFirst := earlier(node, own, name, other)
		if slices.ContainsFunc(other.podCIDRs, contains) && (!inRange || !isFirst) {
			return false
		}
		if !inRange && slices.Contains(other.addresses, address) && !isFirst {
			return false
		}
	}
	return true
}

// earlier says whether node a was there before node b.
func earlier(aName string, a nodeFacts, bName string, b nodeFacts) bool {
	if a.created.Equal(b.created) {
		return aName < bName
	}
	return a.created.Before(b.created)
}

// mayServe says whether a node may say that a component serves a Service on it.
func mayServe(node nodeFacts, info sdk.Info, service string) bool {
	return slices.Contains(info.Services, service) && (info.Scope == sdk.NodeScope || node.server)
}

// addresses returns those of an endpoint, or ok false when they are not all of one family or
// not the node's.
func (s *snapshot) addresses(node string, e nodestatus.Endpoint) (addresses []netip.Addr, ok bool) {
	for _, text := range e.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Is4In6() || a.Zone() != "" || !a.IsGlobalUnicast() || !mayHave(s.nodes, node, a) {
			return nil, false
		}
		if len(addresses) > 0 && a.Is4() != addresses[0].Is4() {
			return nil, false
		}
		addresses = append(addresses, a)
	}
	return addresses, len(addresses) > 0
}
