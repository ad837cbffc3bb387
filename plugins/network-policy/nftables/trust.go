package nftables

import (
	"net/netip"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// What a node says of its pods and components is its word alone: a stolen one could say that it
// has another pod's address, or that a DNS server is wherever it likes. So addresses count only
// where they can be, and labels are what the servers say.

// host is what counts of a Node.
type host struct {
	podCIDRs []netip.Prefix
	addrs    []netip.Addr
}

func hostOf(o *corev1.Node) *host {
	h := &host{}
	for _, text := range o.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			h.podCIDRs = append(h.podCIDRs, prefix.Masked())
		}
	}
	for _, a := range o.Status.Addresses {
		if addr, ok := parseAddr(a.Address); ok {
			h.addrs = append(h.addrs, addr)
		}
	}
	return h
}

// parseAddr reads an address of some node. A zone, which could be any text, is none of nft's
// business.
func parseAddr(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	return addr, err == nil && addr.Zone() == "" && !addr.Is4In6() && addr.IsGlobalUnicast()
}

func within(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// credible says whether a pod can have addr.
func (e *engine) credible(p *pod, addr netip.Addr) bool {
	switch h := e.hosts[p.node]; {
	case !e.has(addr) || addr.Zone() != "":
		return false
	case len(e.subnets) == 0: // the pod network is not k3m's: others need not care for what a Node says
		return true
	case !p.local && within(e.subnets, addr):
		return false
	case h == nil: // gone, or not told of yet
		return p.local
	default:
		return len(h.podCIDRs) == 0 || within(h.podCIDRs, addr)
	}
}

// setHost takes in a new or changed Node; nil means that there is none (any more).
func (e *engine) setHost(name string, h *host) {
	old := e.hosts[name]
	if reflect.DeepEqual(old, h) {
		return
	}
	e.hosts[name] = h
	if h == nil {
		delete(e.hosts, name)
	}
	e.reconsider(name)
	var changed []*pod
	for _, p := range e.pods {
		if p.node == name {
			changed = append(changed, p)
		}
	}
	for _, p := range changed {
		anew := *p
		anew.addrs = nil
		e.setPod(p.objectKey, &anew)
	}
}

// setLabels takes in how policies see a component; nil means that they don't.
func (e *engine) setLabels(id string, l labels.Set) {
	if labels.Equals(e.labels[id], l) {
		return
	}
	e.labels[id] = l
	if len(l) == 0 {
		delete(e.labels, id)
	}
	for node := range e.reported {
		e.reconsider(node)
	}
}

// setComponents takes in what a node says of its components; none when it is gone.
func (e *engine) setComponents(node string, components []component) {
	e.reported[node] = components
	if len(components) == 0 {
		delete(e.reported, node)
	}
	e.reconsider(node)
}

// reconsider brings up to date what is believed of a node's components.
func (e *engine) reconsider(node string) {
	var believed []component
	for _, c := range e.reported[node] {
		l, known := e.labels[c.id]
		if !known {
			continue
		}
		b := component{id: c.id, labels: l}
		for _, at := range c.endpoints {
			h := e.hosts[node]
			if h == nil || node != e.node && within(e.subnets, at.addr) {
				continue
			}
			if within(h.podCIDRs, at.addr) || slices.Contains(h.addrs, at.addr) {
				b.endpoints = append(b.endpoints, at)
			}
		}
		believed = append(believed, b)
	}
	if reflect.DeepEqual(e.nodes[node], believed) {
		return
	}
	e.withComponents([]string{node}, func() {
		delete(e.nodes, node)
		if len(believed) > 0 {
			e.nodes[node] = believed
		}
	})
}
