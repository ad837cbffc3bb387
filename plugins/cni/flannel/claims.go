package flannel

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/flannel-io/flannel/pkg/lease"
	corev1 "k8s.io/api/core/v1"
)

// Who registers a Node may give it any pod CIDR, and writes its annotations. So a lease
// is at first a claim. It is granted, and packets are sent there, unless
//
//   - its subnet overlaps this node's own, or is of another size, or
//   - another node, which is older, claims the same subnet, or the same identity in the
//     backend's tunnel, by which the kernel's tables would lead to either.
//
// Claims are settled when this node's own subnet is known and all Nodes of the start have
// been seen, so that a younger node gets nothing just because it is seen first; and again
// whenever one of them comes, changes or goes.

// claim is what another node's object says that is its.
type claim struct {
	lease   lease.Lease
	subnets subnets
	things  []string // what only one node can have, in words for the log
	created time.Time
	refusal string // that was logged last; "" is granted, or not settled yet
}

// claimOf reads another node's claim off its object; errors are those of leaseOf.
func (p *plan) claimOf(node *corev1.Node) (*claim, error) {
	l, err := p.leaseOf(node)
	if err != nil {
		return nil, err
	}
	s, err := parseSubnets(node.Spec.PodCIDRs)
	if err != nil {
		return nil, err
	}
	c := &claim{lease: l, subnets: p.ofFamilies(s), created: node.CreationTimestamp.Time}
	for _, cidr := range c.subnets.list() {
		c.things = append(c.things, cidr.String())
	}
	c.things = append(c.things, identities("", l.Attrs.BackendData)...)
	c.things = append(c.things, identities("IPv6 ", l.Attrs.BackendV6Data)...)
	return c, nil
}

// ofFamilies leaves out the families that the cluster has not.
func (p *plan) ofFamilies(s subnets) subnets {
	if !p.ipv4() {
		s.v4 = netip.Prefix{}
	}
	if !p.ipv6() {
		s.v6 = netip.Prefix{}
	}
	return s
}

// identities are by what a backend tells the nodes apart: vxlan by the MAC address of the
// tunnel's end, wireguard by the public key. Each family has a tunnel of its own.
func identities(family string, data json.RawMessage) []string {
	var have struct{ VtepMAC, PublicKey string }
	// An error leaves the fields that could be read; no backend takes such data.
	_ = json.Unmarshal(data, &have)
	var list []string
	if mac, err := net.ParseMAC(have.VtepMAC); err == nil {
		list = append(list, family+"MAC address "+mac.String())
	}
	// One key can be written in several ways.
	if key, err := base64.StdEncoding.DecodeString(have.PublicKey); err == nil && len(key) > 0 {
		list = append(list, family+"public key "+base64.StdEncoding.EncodeToString(key))
	}
	return list
}

// ownSeen takes over this node's pod CIDRs. Those that a Node has which is made anew, none
// at first, change nothing: the bridge still has the old ones. m.mu is held.
func (m *leases) ownSeen() {
	s, err := parseSubnets(m.own.Spec.PodCIDRs)
	if err != nil || m.plan.checkSubnets(s) != nil {
		return // awaitSubnets and guard say so
	}
	if s = m.plan.ofFamilies(s); s != m.mine {
		m.mine = s
		m.settle(nil)
	}
}

// allSeen says that all Nodes of the start have been seen.
func (m *leases) allSeen() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listed = true
	m.settle(nil)
}

// enter takes up a node's claim, new or changed. m.mu is held.
func (m *leases) enter(node string, now *claim) {
	touched := now.things
	if before, ok := m.claims[node]; ok {
		if reflect.DeepEqual(before.lease, now.lease) && before.created.Equal(now.created) {
			return
		}
		now.refusal = before.refusal
		touched = slices.Concat(touched, before.things)
	}
	m.claims[node] = now
	m.settle(touched)
}

// withdraw takes a node's claim back, if there is one. m.mu is held.
func (m *leases) withdraw(node string) {
	before, ok := m.claims[node]
	if !ok {
		return
	}
	delete(m.claims, node)
	m.forget(node)
	m.settle(before.things)
}

// settle decides anew on the claims that touch one of things; nil is on all. What is
// taken away is queued before what is given, for the two may be the same. m.mu is held.
func (m *leases) settle(things []string) {
	if !m.listed || len(m.mine.list()) == 0 {
		return
	}
	oldest := m.oldest()
	var granted []string
	for node, c := range m.claims {
		if things != nil && !anyOf(c.things, things) {
			continue
		}
		refusal := m.refuse(node, c, oldest)
		if refusal != "" && refusal != c.refusal {
			m.log.Warn("node is refused: no packet is sent to its pods", "node", node, "reason", refusal,
				"hint", "if the Node should not have what it claims, remove it")
		}
		c.refusal = refusal
		before, had := m.known[node]
		if had && (refusal != "" || before.Subnet != c.lease.Subnet || !before.IPv6Subnet.Equal(c.lease.IPv6Subnet)) {
			m.forget(node)
		}
		if refusal == "" {
			granted = append(granted, node)
		}
	}
	for _, node := range granted {
		now := m.claims[node].lease
		if before, had := m.known[node]; had && reflect.DeepEqual(before, now) {
			continue
		}
		m.known[node] = now
		m.queue = append(m.queue, lease.Event{Type: lease.EventAdded, Lease: now})
		m.signal()
	}
	select {
	case <-m.settled:
	default:
		close(m.settled)
	}
}

// refuse says why a claim can't be granted; "" is that it can. oldest is of now. m.mu is
// held.
func (m *leases) refuse(node string, c *claim, oldest map[string]string) string {
	for _, family := range [][2]netip.Prefix{{c.subnets.v4, m.mine.v4}, {c.subnets.v6, m.mine.v6}} {
		theirs, mine := family[0], family[1]
		switch {
		case !theirs.IsValid(): // then mine is not, either
		case theirs.Overlaps(mine):
			return fmt.Sprintf("pod CIDR %s overlaps this node's own %s", theirs, mine)
		case theirs.Bits() != mine.Bits():
			return fmt.Sprintf("pod CIDR %s is not of the same size as this node's own %s", theirs, mine)
		}
	}
	// Of one size, two subnets overlap when they are the same.
	for _, thing := range c.things {
		if other := oldest[thing]; other != node {
			return fmt.Sprintf("node %s, which is older, has %s", other, thing)
		}
	}
	return ""
}

// oldest names, for each thing that is claimed, the oldest node that does. m.mu is held.
func (m *leases) oldest() map[string]string {
	oldest := map[string]string{}
	for node, c := range m.claims {
		for _, thing := range c.things {
			first, taken := oldest[thing]
			if !taken || c.olderThan(m.claims[first], strings.Compare(node, first)) {
				oldest[thing] = node
			}
		}
	}
	return oldest
}

// olderThan says whether c goes before another claim; byName decides between two of one
// age.
func (c *claim) olderThan(another *claim, byName int) bool {
	if c.created.Equal(another.created) {
		return byName < 0
	}
	return c.created.Before(another.created)
}

// anyOf says whether one of list is among things.
func anyOf(list, things []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return slices.Contains(things, s) })
}
