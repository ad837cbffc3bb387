package nftables

import (
	"fmt"
	"maps"
	"slices"
)

// setKind is what a set holds, and the first part of its name.
type setKind string

const (
	// peerPods are the addresses of the pods that a selector takes in.
	peerPods setKind = "pods"
	// namedPorts are the addresses of such pods, and of components, with the number that a
	// port's name has there.
	namedPorts setKind = "ports"
	// ownNamedPorts are the same of this node's pods.
	ownNamedPorts setKind = "own"
	// componentEndpoints are where the components that a selector takes in serve.
	componentEndpoints setKind = "comps"
)

// setSpec says what a set holds. Two specs with the same name are the same set.
type setSpec struct {
	kind     setKind
	family   family
	selector selector
	port     portName
}

func (s setSpec) name() string {
	return string(s.kind) + s.family.digit + "-" + digest(s.selector.key+"\x00"+s.port.protocol+"\x00"+s.port.name)
}

// elementType is the type of its elements by nft's name.
func (s setSpec) elementType() string {
	switch s.kind {
	case namedPorts, ownNamedPorts:
		return s.family.kind + " . inet_service"
	case componentEndpoints:
		return s.family.kind + " . inet_proto . inet_service"
	default:
		return s.family.kind
	}
}

// table is a map of the kernel, or a set (all values are empty), as it shall be and as it
// is. Changes cost as much as there are changes.
type table struct {
	want    map[string]string
	have    map[string]string
	touched map[string]struct{}
}

func newTable() table {
	return table{want: map[string]string{}, have: map[string]string{}, touched: map[string]struct{}{}}
}

func (t *table) put(key, value string) {
	if old, there := t.want[key]; !there || old != value {
		t.want[key] = value
		t.touched[key] = struct{}{}
	}
}

func (t *table) remove(key string) {
	if _, there := t.want[key]; there {
		delete(t.want, key)
		t.touched[key] = struct{}{}
	}
}

// changes gives what differs between want and have, in order; all of want when fresh.
func (t *table) changes(fresh bool) (gone, put []string) {
	if fresh {
		return nil, slices.Sorted(maps.Keys(t.want))
	}
	for key := range t.touched {
		want, wanted := t.want[key]
		have, there := t.have[key]
		if there && (!wanted || want != have) {
			gone = append(gone, key)
		}
		if wanted && (!there || want != have) {
			put = append(put, key)
		}
	}
	slices.Sort(gone)
	slices.Sort(put)
	return gone, put
}

// done says that the kernel has what is wanted.
func (t *table) done(fresh bool) {
	if fresh {
		t.have = maps.Clone(t.want)
		clear(t.touched)
		return
	}
	for key := range t.touched {
		if want, wanted := t.want[key]; wanted {
			t.have[key] = want
		} else {
			delete(t.have, key)
		}
	}
	clear(t.touched)
}

// set is a set that chains refer to.
type set struct {
	setSpec
	table
	id         string // the spec's name
	refs       int
	programmed bool
	counts     map[string]int // of elements, since several components or ports may give the same
	pods       map[*pod]struct{}
	changed    map[string]*set // the engine's
}

func (s *set) add(elements []string) {
	for _, e := range elements {
		s.counts[e]++
		s.put(e, "")
		s.changed[s.id] = s
	}
}

func (s *set) take(elements []string) {
	for _, e := range elements {
		s.changed[s.id] = s
		if s.counts[e]--; s.counts[e] == 0 {
			delete(s.counts, e)
			s.remove(e)
		}
	}
}

// acquire takes a reference to a set, which is filled when it is new.
func (e *engine) acquireSet(spec setSpec) *set {
	name := spec.name()
	s, there := e.sets[name]
	if !there {
		s = &set{
			setSpec: spec, table: newTable(), id: name, counts: map[string]int{}, pods: map[*pod]struct{}{}, changed: e.changedSets,
		}
		e.sets[name] = s
		if spec.selector.namespaces == nil {
			e.scope(spec.selector.namespace)[s] = struct{}{}
		} else {
			e.scope("")[s] = struct{}{}
		}
		e.fill(s)
	}
	s.refs++
	e.changedSets[name] = s
	return s
}

// fill puts in all that a new set holds.
func (e *engine) fill(s *set) {
	switch {
	case s.kind == componentEndpoints:
	case s.selector.namespaces == nil:
		for p := range e.podsOf[s.selector.namespace] {
			e.join(p, s)
		}
	default:
		for _, pods := range e.podsOf {
			for p := range pods {
				e.join(p, s)
			}
		}
	}
	for _, node := range e.nodes {
		s.add(e.componentElements(s, node))
	}
}

// release drops a reference. A set without any goes with the next transaction.
func (e *engine) releaseSet(s *set) {
	s.refs--
	e.changedSets[s.id] = s
}

// scope are the sets whose selectors are of one namespace; "" those that span several.
func (e *engine) scope(namespace string) map[*set]struct{} {
	if e.scopes[namespace] == nil {
		e.scopes[namespace] = map[*set]struct{}{}
	}
	return e.scopes[namespace]
}

// forget removes a set that is no longer referred to.
func (e *engine) forgetSet(s *set) {
	for p := range s.pods {
		delete(p.sets, s)
	}
	namespace := ""
	if s.selector.namespaces == nil {
		namespace = s.selector.namespace
	}
	delete(e.scope(namespace), s)
	if len(e.scope(namespace)) == 0 {
		delete(e.scopes, namespace)
	}
	delete(e.sets, s.id)
}

// join brings what p has in s up to date.
func (e *engine) join(p *pod, s *set) {
	elements := e.elements(p, s)
	if old := p.sets[s]; slices.Equal(old, elements) {
		return
	} else {
		s.add(elements) // first, so that what stays is never gone
		s.take(old)
	}
	if len(elements) == 0 {
		delete(p.sets, s)
		delete(s.pods, p)
		return
	}
	p.sets[s] = elements
	s.pods[p] = struct{}{}
}

// rejoin brings what p has in any set up to date.
func (e *engine) rejoin(p *pod) {
	for s := range e.scopes[p.namespace] {
		e.join(p, s)
	}
	for s := range e.scopes[""] {
		e.join(p, s)
	}
}

// leave takes p out of all sets.
func (e *engine) leave(p *pod) {
	for s, elements := range p.sets {
		s.take(elements)
		delete(s.pods, p)
	}
	clear(p.sets)
}

// elements are those that p puts into s.
func (e *engine) elements(p *pod, s *set) []string {
	if s.kind == componentEndpoints || s.kind == ownNamedPorts && !p.local {
		return nil
	}
	namespaceLabels, known := e.namespaces[p.namespace]
	if len(p.addrs) == 0 || !s.selector.matches(p.namespace, namespaceLabels, known, p.labels) {
		return nil
	}
	var elements []string
	for _, addr := range p.addrs {
		if addr.Is4() != s.family.is4 {
			continue
		}
		if s.kind == peerPods {
			elements = append(elements, addr.String())
			continue
		}
		for _, port := range p.ports {
			if port.name == s.port.name && port.protocol == s.port.protocol {
				elements = append(elements, fmt.Sprintf("%s . %d", addr, port.number))
			}
		}
	}
	return elements
}

// componentElements are those that the components of a node put into s.
func (e *engine) componentElements(s *set, components []component) []string {
	if s.kind == peerPods || s.kind == ownNamedPorts {
		return nil
	}
	namespaceLabels, known := e.namespaces[componentNamespace]
	var elements []string
	for _, c := range components {
		if !s.selector.matches(componentNamespace, namespaceLabels, known, c.labels) {
			continue
		}
		for _, at := range c.endpoints {
			switch {
			case at.addr.Is4() != s.family.is4:
			case s.kind == componentEndpoints:
				elements = append(elements, fmt.Sprintf("%s . %s . %d", at.addr, at.protocol, at.number))
			case at.name == s.port.name && at.protocol == s.port.protocol:
				elements = append(elements, fmt.Sprintf("%s . %d", at.addr, at.number))
			}
		}
	}
	return elements
}
