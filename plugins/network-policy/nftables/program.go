package nftables

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// tableName is the table of inet that holds all; nodes on one host have their own network
// namespaces.
const tableName = "k3m-network-policy"

// ownAddresses are the sets of pairs of the same local address, by family: nothing keeps a
// pod from itself, by way of a Service above all.
const ownAddresses = "itself"

// denied are the counters of what is dropped, by direction.
var denied = [2]string{"denied-ingress", "denied-egress"}

// The base chains. An accept ends only the chain that it is in, so a connection between two
// pods of this node has to be accepted by both of forward's. They come before kube-proxy's
// and after the translation of addresses, so they see the pods' own.
const (
	chainOut   = "forward-egress"  // what pods send to elsewhere
	chainLocal = "input-egress"    // what pods send to this node: its components, its API server
	chainIn    = "forward-ingress" // what pods get from elsewhere; what the node itself sends them is always allowed
)

var baseChains = []knftables.Chain{
	{Name: chainOut, Hook: knftables.PtrTo(knftables.ForwardHook), Priority: knftables.PtrTo(knftables.FilterPriority + "-6")},
	{Name: chainLocal, Hook: knftables.PtrTo(knftables.InputHook), Priority: knftables.PtrTo(knftables.FilterPriority + "-6")},
	{Name: chainIn, Hook: knftables.PtrTo(knftables.ForwardHook), Priority: knftables.PtrTo(knftables.FilterPriority + "-5")},
}

// network is where this node's pods are.
type network struct {
	families []family
	// bridge is the interface that they hang on; empty when that is not known.
	bridge string
	// subnets are the node's own, out of which they have their addresses.
	subnets []netip.Prefix
}

// podNetwork finds the interface that has the gateways, unless these are not of the pods'
// network: without one of k3m's own they are the node's addresses.
func podNetwork(clusterCIDRs []netip.Prefix, gateways []netip.Addr) (network, error) {
	var n network
	for _, cidr := range clusterCIDRs {
		if f := familyOf(cidr.Addr()); !slices.Contains(n.families, f) {
			n.families = append(n.families, f)
		}
	}
	slices.SortFunc(n.families, func(a, b family) int { return strings.Compare(a.digit, b.digit) })
	interfaces, err := net.Interfaces()
	if err != nil {
		return n, fmt.Errorf("list the host's interfaces: %w", err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went meanwhile
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil || !slices.Contains(gateways, prefix.Addr()) || prefix.IsSingleIP() ||
				!slices.ContainsFunc(clusterCIDRs, func(c netip.Prefix) bool { return c.Contains(prefix.Addr()) }) {
				continue
			}
			n.bridge = i.Name
			n.subnets = append(n.subnets, prefix.Masked())
		}
	}
	return n, nil
}

// unseen says why the kernel does not show packets between pods of this node to these rules,
// if so: the bridge passes them on by itself unless it is told otherwise, which cni.flannel does.
func (n network) unseen() string {
	if n.bridge == "" {
		return ""
	}
	for _, f := range n.families {
		name := map[bool]string{true: "bridge-nf-call-iptables", false: "bridge-nf-call-ip6tables"}[f.is4]
		if value, err := os.ReadFile("/proc/sys/net/bridge/" + name); err != nil || strings.TrimSpace(string(value)) != "1" {
			return fmt.Sprintf("policies do not hold between pods of this node, since net.bridge.%s is not 1: "+
				"load the kernel module br_netfilter (modprobe br_netfilter) and restart k3m", name)
		}
	}
	return ""
}

// baseRules are the rules of a base chain. When closed, which is as long as there is any
// policy, a pod that has no entry in the verdict maps gets nothing.
func (n network) baseRules(chain string, closed bool) []string {
	d, field, side := egress, "saddr", "iifname"
	if chain == chainIn {
		d, field, side = ingress, "daddr", "oifname"
	}
	// Without a rule that asks for it the kernel need not track connections, and the first
	// policy would cut those that are there.
	rules := []string{"ct state established,related accept"}
	if !closed {
		return rules
	}
	rules = append(rules,
		// Neighbour discovery and multicast listeners: no address is found without. The hop limits
		// are those that they have to have, so no router passes on what has them: one of 1 may
		// have been 2 before this node, but not on the way to a link's multicast address.
		"icmpv6 type { 133-137 } ip6 hoplimit 255 accept",
		"icmpv6 type { 130-132, 143 } ip6 hoplimit 1 ip6 daddr ff00::/8 accept",
	)
	if chain == chainLocal {
		rules = append(rules, `iifname "lo" accept`)
	}
	for _, f := range n.families {
		if chain != chainLocal {
			rules = append(rules, fmt.Sprintf("%s saddr . %s daddr @%s%s accept", f.name, f.name, ownAddresses, f.digit))
		}
		rules = append(rules, fmt.Sprintf("%s %s vmap @%s", f.name, field, verdictMap{f, d}.name()))
	}
	for _, subnet := range n.subnets {
		rules = append(rules, fmt.Sprintf("%s %s %s counter name unknown drop", familyOf(subnet.Addr()).name, field, subnet))
	}
	if n.bridge != "" {
		rules = append(rules, fmt.Sprintf("%s %q counter name unknown drop", side, n.bridge))
	}
	return rules
}

// programmer writes what the engine wants into the kernel.
type programmer struct {
	nft knftables.Interface
	// frames is the table of the same name in the family bridge; nil without a bridge of
	// pods. See guard.
	frames  knftables.Interface
	network network
	// fresh has the next transaction replace the whole table: at the start, after an error,
	// and when someone else changed it.
	fresh   bool
	closed  bool // as the kernel has it
	guarded bool // it has frames
}

// size counts what the kernel has.
type size struct{ chains, sets, elements int }

// sync writes in one transaction what changed since the last one; nothing, without a change.
func (p *programmer) sync(ctx context.Context, e *engine) (operations int, err error) {
	e.judge()
	deadChains, deadSets := e.collect()
	tx := p.nft.NewTransaction()
	p.write(tx, e, deadChains, deadSets)
	if tx.NumOperations() > 0 {
		if err := p.nft.Run(ctx, tx); err != nil {
			p.fresh = true // what was collected is gone from the engine
			return tx.NumOperations(), fmt.Errorf("program %d changes of nftables: %w", tx.NumOperations(), err)
		}
	}
	e.done(p.fresh)
	p.guarded = p.guarded && !p.fresh
	p.fresh, p.closed = false, e.closed()
	guard, err := p.guard(ctx)
	return tx.NumOperations() + guard, err
}

func (p *programmer) write(tx *knftables.Transaction, e *engine, deadChains []*chain, deadSets []*set) {
	fresh := p.fresh
	if fresh {
		p.writeTable(tx)
	}
	// Only what changed is looked at.
	sets, chains := e.changedSets, e.changedChains
	if fresh {
		sets, chains = e.sets, e.chains
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		if s := e.sets[name]; s != nil && (fresh || !s.programmed) {
			tx.Add(&knftables.Set{Name: name, Type: s.elementType()})
		}
	}
	p.writeChains(tx, chains, e, fresh)
	for _, f := range p.network.families {
		for _, d := range directions {
			p.writeVerdicts(tx, verdictMap{f, d}, e.verdicts[verdictMap{f, d}], fresh)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		s := e.sets[name]
		if s == nil {
			continue // without references: it goes as a whole
		}
		gone, put := s.changes(fresh)
		for _, key := range gone {
			tx.Delete(&knftables.Element{Set: name, Key: []string{key}})
		}
		for _, key := range put {
			tx.Add(&knftables.Element{Set: name, Key: []string{key}})
		}
	}
	if fresh || p.closed != e.closed() {
		for _, c := range baseChains {
			tx.Flush(&knftables.Chain{Name: c.Name})
			for _, rule := range p.network.baseRules(c.Name, e.closed()) {
				tx.Add(&knftables.Rule{Chain: c.Name, Rule: rule})
			}
		}
	}
	if fresh {
		return
	}
	for _, c := range deadChains {
		if c.programmed {
			tx.Flush(&knftables.Chain{Name: c.name})
			tx.Delete(&knftables.Chain{Name: c.name})
		}
	}
	for _, s := range deadSets {
		if s.programmed {
			tx.Delete(&knftables.Set{Name: s.id})
		}
	}
}

// writeChains writes the chains that the kernel does not have, policies' before profiles,
// which jump to them.
func (p *programmer) writeChains(tx *knftables.Transaction, chains map[string]*chain, e *engine, fresh bool) {
	for _, profiles := range []bool{false, true} {
		for _, name := range slices.Sorted(maps.Keys(chains)) {
			c := e.chains[name]
			if c == nil || len(c.jumps) > 0 != profiles || !fresh && c.programmed {
				continue
			}
			tx.Add(&knftables.Chain{Name: name})
			for _, line := range c.lines {
				tx.Add(&knftables.Rule{Chain: name, Rule: line})
			}
		}
	}
}

// writeTable starts anew with what is always there. The kernel keeps the old table until
// all of the new one is good.
func (p *programmer) writeTable(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("k3m network-policy.nftables")})
	for _, name := range append(denied[:], "unknown") {
		tx.Add(&knftables.Counter{Name: name})
	}
	for _, f := range p.network.families {
		tx.Add(&knftables.Set{Name: ownAddresses + f.digit, Type: f.kind + " . " + f.kind})
		for _, d := range directions {
			tx.Add(&knftables.Map{Name: verdictMap{f, d}.name(), Type: f.kind + " : verdict"})
		}
	}
	for _, c := range baseChains {
		c.Type, c.Policy = knftables.PtrTo(knftables.FilterType), knftables.PtrTo(knftables.AcceptPolicy)
		tx.Add(&c)
	}
}

func (p *programmer) writeVerdicts(tx *knftables.Transaction, m verdictMap, t *table, fresh bool) {
	gone, put := t.changes(fresh)
	// Of each local address there is an entry in either direction, or soon will be.
	pair := func(addr string) *knftables.Element {
		return &knftables.Element{Set: ownAddresses + m.family.digit, Key: []string{addr, addr}}
	}
	for _, addr := range gone {
		tx.Delete(&knftables.Element{Map: m.name(), Key: []string{addr}})
		if m.d == ingress {
			tx.Delete(pair(addr))
		}
	}
	for _, addr := range put {
		tx.Add(&knftables.Element{Map: m.name(), Key: []string{addr}, Value: []string{t.want[addr]}})
		if m.d == ingress {
			tx.Add(pair(addr))
		}
	}
}

// done says that the kernel has all that the engine wants.
func (e *engine) done(fresh bool) {
	for _, t := range e.verdicts {
		t.done(fresh)
	}
	sets, chains := e.changedSets, e.changedChains
	if fresh {
		sets, chains = e.sets, e.chains
	}
	for _, s := range sets {
		s.done(fresh)
		s.programmed = true
	}
	for _, c := range chains {
		c.programmed = true
	}
	clear(e.changedChains)
	clear(e.changedSets)
}

// size counts what is programmed.
func (e *engine) size() size {
	n := size{chains: len(e.chains) + len(baseChains), sets: len(e.sets) + len(e.families)*3}
	for _, s := range e.sets {
		n.elements += len(s.want)
	}
	for _, t := range e.verdicts {
		n.elements += len(t.want)
	}
	return n
}
