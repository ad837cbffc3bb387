package nftables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// protocols are those that a policy can name, by nft's names.
var protocols = []string{"tcp", "udp", "sctp"}

// family is an IP version.
type family struct {
	digit string // in names: "4"
	name  string // in rules: "ip"
	kind  string // of sets: "ipv4_addr"
	is4   bool
}

var (
	ipv4 = family{"4", "ip", "ipv4_addr", true}
	ipv6 = family{"6", "ip6", "ipv6_addr", false}
)

func familyOf(addr netip.Addr) family {
	if addr.Is4() {
		return ipv4
	}
	return ipv6
}

// rules are the content of a chain, and the sets that they refer to.
type rules struct {
	name  string
	lines []string
	sets  []setSpec
	// tooLarge says that the policy's rules are more than is allowed, and so allow nobody.
	tooLarge bool
}

// What one policy may come to in one direction. Peers multiply with ports, so an object of some
// kilobytes could ask for gigabytes on every node.
const (
	maxSteps = 20_000  // rules, and references to sets
	maxBytes = 1 << 20 // of the rules and of what selects the sets' members
)

// newRules names lines by what they say. The same lines are the same chain, whichever
// policy they come from.
func newRules(prefix string, lines []string, sets []setSpec) *rules {
	return &rules{name: prefix + digest(strings.Join(lines, "\n")), lines: lines, sets: sets}
}

// digest is what stands in names for anything that a user wrote. 96 bits: no one finds two
// texts with the same by chance, and who wants to would have to try 2^48.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:12])
}

// compiler translates policies. It is a function of its fields and its arguments.
type compiler struct {
	families []family
	// components says whether s takes in a component of any node.
	components func(s *selector) bool
}

// policy compiles the rules of one direction.
func (c compiler) policy(namespace string, spec *networkingv1.NetworkPolicySpec, d direction) *rules {
	u := unit{compiler: c, namespace: namespace, d: d, lines: map[string]struct{}{}, sets: map[string]setSpec{}}
	if d == ingress {
		for _, r := range spec.Ingress {
			u.rule(r.From, r.Ports)
		}
	} else {
		for _, r := range spec.Egress {
			u.rule(r.To, r.Ports)
		}
	}
	if u.tooLarge() {
		r := newRules([]string{"in-", "out-"}[d], nil, nil)
		r.tooLarge = true
		return r
	}
	// Every rule accepts, so their order says nothing: sorted, the same rules are the same.
	return newRules([]string{"in-", "out-"}[d], slices.Sorted(maps.Keys(u.lines)), slices.Collect(maps.Values(u.sets)))
}

// unit is one policy in one direction while it is compiled.
type unit struct {
	compiler
	namespace string
	d         direction
	lines     map[string]struct{}
	sets      map[string]setSpec
	steps     int // what counts against maxSteps and maxBytes; the same thing again counts again, since it is work
	bytes     int
}

// tooLarge is true from the step on that was one too many; nothing is added after it.
func (u *unit) tooLarge() bool { return u.steps > maxSteps || u.bytes > maxBytes }

func (u *unit) accept(parts ...string) {
	u.steps++
	for _, p := range parts {
		u.bytes += len(p) + len(" ")
	}
	if u.tooLarge() {
		return
	}
	words := slices.DeleteFunc(append(parts, "accept"), func(p string) bool { return p == "" })
	u.lines[strings.Join(words, " ")] = struct{}{}
}

// set refers to a set.
func (u *unit) set(s setSpec) string {
	u.steps++
	u.bytes += len(s.selector.key)
	if u.tooLarge() {
		return ""
	}
	u.sets[s.name()] = s
	return "@" + s.name()
}

// peer is the field of the other end's address.
func (u *unit) peer(f family) string {
	return f.name + []string{" saddr", " daddr"}[u.d]
}

// rule writes what one rule of a policy allows: any of peers on any of ports.
func (u *unit) rule(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
	numeric, named := readPorts(ports)
	if len(ports) == 0 {
		numeric = []string{""} // all
	}
	if len(peers) == 0 { // all
		for _, n := range numeric {
			u.accept(n)
		}
		everything := newSelector("", labels.Everything(), labels.Everything())
		for _, f := range u.families {
			for _, n := range named {
				u.named(f, "", everything, n)
			}
		}
		return
	}
	for _, f := range u.families {
		for _, match := range u.blocks(f, peers) {
			if u.tooLarge() {
				return
			}
			for _, n := range numeric {
				u.accept(match, n)
			}
			if u.d == ingress {
				for _, n := range named {
					u.named(f, match, selector{}, n)
				}
			} // what a block has no pods of has no port names either
		}
		for _, peer := range peers {
			if u.tooLarge() {
				return
			}
			if peer.IPBlock == nil && (peer.PodSelector != nil || peer.NamespaceSelector != nil) {
				u.selected(f, u.selector(peer), numeric, named)
			}
		}
	}
}

// selected writes what a rule allows pods, and components, of s.
func (u *unit) selected(f family, s selector, numeric []string, named []portName) {
	pods := u.peer(f) + " " + u.set(setSpec{kind: peerPods, family: f, selector: s})
	for _, n := range numeric {
		u.accept(pods, n)
	}
	for _, n := range named {
		u.named(f, pods, s, n)
	}
	// As a source a component can't be told from its node, nor that from whoever comes in by a
	// NodePort there: it has its node's address.
	if u.d == ingress || !u.components(&s) {
		return
	}
	// Components share their node's addresses: the port tells them apart.
	target := u.peer(f) + " . meta l4proto . th dport " + u.set(setSpec{kind: componentEndpoints, family: f, selector: s})
	for _, n := range numeric {
		u.accept(target, n)
	}
}

// named writes a port that is given by name, which each pod that is connected to says the
// number of: on the way in the policy's own pods, on the way out the peers.
func (u *unit) named(f family, match string, peers selector, n portName) {
	if u.tooLarge() {
		return
	}
	s := setSpec{kind: namedPorts, family: f, selector: peers, port: n}
	if u.d == ingress {
		s.kind, s.selector = ownNamedPorts, newSelector(u.namespace, nil, labels.Everything())
	} else {
		match = "" // the set has the peers already
	}
	u.accept(match, f.name+" daddr . "+n.protocol+" dport "+u.set(s))
}

func (u *unit) selector(peer networkingv1.NetworkPolicyPeer) selector {
	pods := labels.Everything()
	if peer.PodSelector != nil {
		pods = labelSelector(peer.PodSelector, labels.Nothing())
	}
	if peer.NamespaceSelector == nil {
		return newSelector(u.namespace, nil, pods)
	}
	return newSelector("", labelSelector(peer.NamespaceSelector, labels.Nothing()), pods)
}

// blocks writes the matches of the address blocks of one family. A block that can't be read,
// or with an exception that can't be, lets nobody in.
func (u *unit) blocks(f family, peers []networkingv1.NetworkPolicyPeer) []string {
	var plain []netip.Prefix
	var matches []string
	for _, peer := range peers {
		if peer.IPBlock == nil {
			continue
		}
		block, ok := parseBlock(peer.IPBlock.CIDR)
		if !ok || block.Addr().Is4() != f.is4 {
			continue
		}
		var except []netip.Prefix
		for _, text := range peer.IPBlock.Except {
			e, good := parseBlock(text)
			ok = ok && good
			if good && e.Overlaps(block) {
				except = append(except, e)
			}
		}
		switch except = outermost(except); {
		case !ok || len(except) == 1 && except[0].Bits() <= block.Bits():
		case len(except) == 0:
			plain = append(plain, block)
		default:
			matches = append(matches, u.within(f, []netip.Prefix{block})+" "+u.peer(f)+" != "+braces(except))
		}
	}
	if len(plain) > 0 {
		matches = append(matches, u.within(f, outermost(plain)))
	}
	return matches
}

func (u *unit) within(f family, blocks []netip.Prefix) string {
	switch {
	case blocks[0].Bits() == 0:
		return "meta nfproto ipv" + f.digit
	case len(blocks) == 1:
		return u.peer(f) + " " + blocks[0].String()
	default:
		return u.peer(f) + " " + braces(blocks)
	}
}

// portName is a port by its name.
type portName struct{ protocol, name string }

// readPorts splits ports into matches of numbers, and names.
func readPorts(ports []networkingv1.NetworkPolicyPort) (numeric []string, named []portName) {
	all, spans := map[string]bool{}, map[string][]span{}
	for _, p := range ports {
		protocol := "tcp"
		if p.Protocol != nil {
			protocol = protocolOf(*p.Protocol)
		}
		switch {
		case !slices.Contains(protocols, protocol):
		case p.Port == nil:
			all[protocol] = true
		case p.Port.Type == intstr.String:
			named = append(named, portName{protocol, p.Port.StrVal})
		default:
			first, last := p.Port.IntVal, p.Port.IntVal
			if p.EndPort != nil {
				last = *p.EndPort
			}
			if 0 < first && first <= last && last < 1<<16 {
				spans[protocol] = append(spans[protocol], span{uint16(first), uint16(last)})
			}
		}
	}
	for _, protocol := range protocols {
		if all[protocol] {
			numeric = append(numeric, "meta l4proto "+protocol)
		} else if len(spans[protocol]) > 0 {
			numeric = append(numeric, fmt.Sprintf("%s dport %s", protocol, braces(mergeSpans(spans[protocol]))))
		}
	}
	return numeric, named
}
