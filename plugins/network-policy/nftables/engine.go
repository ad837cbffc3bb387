package nftables

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// engine works out which sets, chains and map entries this node has to have. Each change
// of an object costs what depends on that object. It is not safe for use by several
// goroutines; loop.go has the one that uses it, and program.go takes its result away.
type engine struct {
	node     string
	families []family
	compiler compiler
	// refused, if set, is told of a policy that is too large, in the directions in which it then
	// allows nobody.
	refused func(policy objectKey, d direction)

	pods       map[objectKey]*pod
	podsOf     map[string]map[*pod]struct{} // by namespace
	claimants  map[netip.Addr][]*pod
	namespaces map[string]labels.Set
	policies   map[objectKey]*policy
	policiesOf map[string]map[*policy]struct{} // by namespace
	nodes      map[string][]component          // by node
	faces      map[string]face                 // of all components
	starting   starting

	sets          map[string]*set
	scopes        map[string]map[*set]struct{} // by namespace of the selector; "": several
	changedSets   map[string]*set              // since the last transaction: references or elements
	chains        map[string]*chain
	changedChains map[string]*chain // whose references changed

	// verdicts are maps from a local pod's address to what becomes of its packets, by
	// family and direction; held are the chains that they refer to.
	verdicts map[verdictMap]*table
	held     map[netip.Addr]*[2]*chain
	dirty    map[netip.Addr]struct{} // local addresses whose verdicts have to be looked at
}

// verdictMap names a map of verdicts.
type verdictMap struct {
	family family
	d      direction
}

func (m verdictMap) name() string { return []string{"ingress", "egress"}[m.d] + m.family.digit }

func newEngine(node string, families []family) *engine {
	e := &engine{
		node: node, families: families,
		pods: map[objectKey]*pod{}, podsOf: map[string]map[*pod]struct{}{}, claimants: map[netip.Addr][]*pod{},
		namespaces: map[string]labels.Set{}, policies: map[objectKey]*policy{},
		policiesOf: map[string]map[*policy]struct{}{}, nodes: map[string][]component{}, starting: newStarting(),
		sets: map[string]*set{}, scopes: map[string]map[*set]struct{}{}, changedSets: map[string]*set{},
		chains: map[string]*chain{}, changedChains: map[string]*chain{},
		verdicts: map[verdictMap]*table{}, held: map[netip.Addr]*[2]*chain{}, dirty: map[netip.Addr]struct{}{},
	}
	for _, f := range families {
		for _, d := range directions {
			t := newTable()
			e.verdicts[verdictMap{f, d}] = &t
		}
	}
	e.compiler = compiler{families: families, components: e.anyComponent}
	return e
}

// setPod takes in a new or changed pod; nil means that there is none (any more).
func (e *engine) setPod(key objectKey, p *pod) {
	if p != nil {
		p.claims = slices.DeleteFunc(p.claims, func(addr netip.Addr) bool { return !e.has(addr) })
	}
	old := e.pods[key]
	if old == nil && p == nil || old != nil && p != nil && old.same(p) {
		return
	}
	var addrs []netip.Addr
	if old != nil {
		addrs = append(addrs, old.claims...)
		e.leave(old)
		e.deselect(old)
		delete(e.pods, key)
		delete(e.podsOf[key.namespace], old)
		for _, addr := range old.claims {
			e.claimants[addr] = slices.DeleteFunc(e.claimants[addr], func(c *pod) bool { return c == old })
		}
		e.starting.moved(old, p)
	}
	if p != nil {
		p.sets, p.policies = map[*set][]string{}, map[*policy]struct{}{}
		e.pods[key] = p
		if e.podsOf[key.namespace] == nil {
			e.podsOf[key.namespace] = map[*pod]struct{}{}
		}
		e.podsOf[key.namespace][p] = struct{}{}
		if p.local {
			for policy := range e.policiesOf[key.namespace] {
				if policy.pods.Matches(p.labels) {
					e.selects(policy, p)
				}
			}
		}
		for _, addr := range p.claims {
			e.claimants[addr] = append(e.claimants[addr], p)
			addrs = append(addrs, addr)
		}
	}
	for _, addr := range addrs {
		e.settle(addr)
	}
	if p != nil {
		e.settled(p)
	}
}

// has says whether addresses of this family count in this cluster.
func (e *engine) has(addr netip.Addr) bool { return slices.Contains(e.families, familyOf(addr)) }

// settle decides whose addr is. Several pods may say that it is theirs for a while, when
// one goes and the next one gets its address: then it is that which stays, the younger.
func (e *engine) settle(addr netip.Addr) {
	claimants := e.claimants[addr]
	if len(claimants) == 0 {
		delete(e.claimants, addr)
	}
	slices.SortFunc(claimants, func(a, b *pod) int {
		if a.leaving != b.leaving {
			if a.leaving {
				return 1
			}
			return -1
		}
		return cmp.Or(b.created.Compare(a.created), cmp.Compare(a.uid, b.uid))
	})
	for i, p := range claimants {
		owns := i == 0 && !e.starting.void(addr, p)
		at := slices.Index(p.addrs, addr)
		if owns && at < 0 {
			p.addrs = append(p.addrs, addr)
		} else if !owns && at >= 0 {
			p.addrs = slices.Delete(slices.Clone(p.addrs), at, at+1)
		}
		e.rejoin(p)
	}
	e.dirty[addr] = struct{}{}
}

// owner is the local pod that has addr.
func (e *engine) owner(addr netip.Addr) *pod {
	for _, p := range e.claimants[addr] {
		if p.local && slices.Contains(p.addrs, addr) {
			return p
		}
	}
	return nil
}

func (e *engine) selects(policy *policy, p *pod) {
	policy.selected[p] = struct{}{}
	p.policies[policy] = struct{}{}
	e.touch(p)
}

func (e *engine) deselect(p *pod) {
	for policy := range p.policies {
		delete(policy.selected, p)
	}
	clear(p.policies)
}

// touch has p's verdicts looked at.
func (e *engine) touch(p *pod) {
	for _, addr := range p.addrs {
		e.dirty[addr] = struct{}{}
	}
}

// setNamespace takes in a namespace's labels; known is false when it is gone.
func (e *engine) setNamespace(name string, l labels.Set, known bool) {
	old, was := e.namespaces[name]
	if known == was && labels.Equals(old, l) {
		return
	}
	change := func() {
		if known {
			e.namespaces[name] = l
		} else {
			delete(e.namespaces, name)
		}
	}
	if name == componentNamespace {
		e.withComponents(slices.Collect(maps.Keys(e.nodes)), change)
	} else {
		change()
	}
	for p := range e.podsOf[name] {
		e.rejoin(p)
	}
}

// setPolicy takes in a new or changed policy; nil means that there is none (any more).
func (e *engine) setPolicy(key objectKey, p *policy) {
	old := e.policies[key]
	if old != nil {
		for selected := range old.selected {
			delete(selected.policies, old)
			e.touch(selected)
		}
		delete(e.policies, key)
		delete(e.policiesOf[key.namespace], old)
	}
	if p != nil {
		e.compile(p)
		e.policies[key] = p
		if e.policiesOf[key.namespace] == nil {
			e.policiesOf[key.namespace] = map[*policy]struct{}{}
		}
		e.policiesOf[key.namespace][p] = struct{}{}
		for candidate := range e.podsOf[key.namespace] {
			if candidate.local && p.pods.Matches(candidate.labels) {
				e.selects(p, candidate)
			}
		}
	}
	e.starting.touch(e.dirty)
}

func (e *engine) compile(p *policy) {
	for _, d := range directions {
		if p.isolates[d] {
			known := p.rules[d] != nil && p.rules[d].tooLarge
			p.rules[d] = e.compiler.policy(p.namespace, &p.spec, d)
			if p.rules[d].tooLarge && !known && e.refused != nil {
				e.refused(p.objectKey, d)
			}
		}
	}
}

// setComponents takes in what a node says of its components; none when it is gone.
func (e *engine) setComponents(node string, components []component) {
	if reflect.DeepEqual(e.nodes[node], components) {
		return
	}
	e.withComponents([]string{node}, func() {
		delete(e.nodes, node)
		if len(components) > 0 {
			e.nodes[node] = components
		}
	})
}

// withComponents brings up to date what depends on the components of nodes, after change:
// elements, and the policies that take in a component that they did not take in before.
func (e *engine) withComponents(nodes []string, change func()) {
	before, faces := map[*set][]string{}, e.faces
	for _, s := range e.sets {
		for _, node := range nodes {
			before[s] = append(before[s], e.componentElements(s, e.nodes[node])...)
		}
	}
	change()
	for _, s := range e.sets {
		for _, node := range nodes {
			s.add(e.componentElements(s, e.nodes[node]))
		}
		s.take(before[s])
	}
	e.faces = map[string]face{}
	namespaceLabels, known := e.namespaces[componentNamespace]
	for _, components := range e.nodes {
		for _, c := range components {
			e.faces[c.labels.String()] = face{c.labels, known, namespaceLabels.String()}
		}
	}
	if reflect.DeepEqual(e.faces, faces) {
		return
	}
	for _, p := range e.policies {
		e.compile(p)
		for selected := range p.selected {
			e.touch(selected)
		}
	}
	e.starting.touch(e.dirty)
}

// face is how policies see a component, on whatever node it is.
type face struct {
	labels          labels.Set
	namespaceKnown  bool
	namespaceLabels string
}

func (e *engine) anyComponent(s *selector) bool {
	namespaceLabels, known := e.namespaces[componentNamespace]
	for _, f := range e.faces {
		if s.matches(componentNamespace, namespaceLabels, known, f.labels) {
			return true
		}
	}
	return false
}

// judge brings the verdicts of the dirty addresses up to date.
func (e *engine) judge() {
	for addr := range e.dirty {
		var verdicts [2]verdict
		if p := e.owner(addr); p != nil {
			verdicts = e.verdictsOf(maps.Keys(p.policies))
		} else {
			verdicts = e.guestVerdicts(addr)
		}
		e.pronounce(addr, verdicts)
	}
	clear(e.dirty)
}

// verdict is what becomes of a pod's packets in one direction.
type verdict struct {
	known    bool     // else there is no entry
	isolated bool     // else all is allowed
	policies []*rules // what is allowed, when isolated
}

// pronounce puts the verdicts into the maps and swaps the references to chains.
func (e *engine) pronounce(addr netip.Addr, verdicts [2]verdict) {
	held := e.held[addr]
	if held == nil {
		held = &[2]*chain{}
	}
	for _, d := range directions {
		entries := e.verdicts[verdictMap{familyOf(addr), d}]
		old := held[d]
		held[d] = nil
		switch v := verdicts[d]; {
		case !v.known:
			entries.remove(addr.String())
		case !v.isolated:
			entries.put(addr.String(), "accept")
		default:
			held[d] = e.acquireProfile(d, v.policies)
			entries.put(addr.String(), "goto "+held[d].name)
		}
		if old != nil {
			e.releaseChain(old)
		}
	}
	if *held == [2]*chain{} {
		delete(e.held, addr)
	} else {
		e.held[addr] = held
	}
}

// tooLarge counts the policies that allow nobody in a direction since they are too large.
func (e *engine) tooLarge() (n int) {
	for _, p := range e.policies {
		if slices.ContainsFunc(p.rules[:], func(r *rules) bool { return r != nil && r.tooLarge }) {
			n++
		}
	}
	return n
}

// closed says whether pods whose address is not known get nothing: as soon as there is a
// policy that may select them.
func (e *engine) closed() bool { return len(e.policies) > 0 }
