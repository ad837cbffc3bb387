package nodeip

import (
	"fmt"
	"net/netip"
	"slices"
)

// verdict is what a Service shall have.
type verdict struct {
	service *service
	// ingress is its status, sorted by family and address; empty while it is pending.
	ingress []ingress
	// blocked are the addresses that it would have as well.
	blocked []blocker
	// nowhere says why no node comes into question at all.
	nowhere string
}

// blocker is why a Service does not get a node's address.
type blocker struct {
	node string
	addr netip.Addr
	port port
	// holder is who has the port; empty when the node has not said yet.
	holder string
	// reserved: the port will never be free.
	reserved bool
}

// claim is an address and port that kube-proxy serves.
type claim struct {
	addr netip.Addr
	port port
}

// assign decides about each Service that is the component's or was. It depends on nothing
// but s and reserved, the ports that no Service may have and what they are for.
//
// Between Services of type LoadBalancer, the older one gets an address and port, whoever
// has it now: so a Service whose pods move from node to node does not lose to a younger
// one. Against all others (node ports, external IPs, host ports of pods, processes of the
// host) who is there first stays: a process that begins to listen takes no address away
// from a Service that serves.
func assign(s snapshot, reserved map[port]string) []verdict {
	a := &assignment{reserved: reserved, taken: map[claim]*service{}, nodePorts: map[port][]*service{}, external: map[claim][]*service{}}
	for _, svc := range s.services {
		for _, p := range svc.nodePorts {
			a.nodePorts[p] = append(a.nodePorts[p], svc)
		}
		for _, addr := range svc.externalIPs {
			for _, p := range svc.ports {
				a.external[claim{addr, p}] = append(a.external[claim{addr, p}], svc)
			}
		}
	}
	limited := slices.ContainsFunc(s.nodes, func(n *node) bool { return n.enabled })
	for _, n := range s.nodes {
		if n.ready && (n.enabled || !limited) {
			a.nodes = append(a.nodes, n)
		}
	}
	var verdicts []verdict
	for _, svc := range slices.SortedFunc(slices.Values(s.services), (*service).before) {
		switch {
		case svc.mine:
			verdicts = append(verdicts, a.decide(svc))
		case svc.abandoned:
			verdicts = append(verdicts, verdict{service: svc})
		}
	}
	return verdicts
}

// assignment is a decision in the making.
type assignment struct {
	reserved  map[port]string
	nodes     []*node // that come into question
	taken     map[claim]*service
	nodePorts map[port][]*service
	external  map[claim][]*service
}

// decide gives a Service what older ones left.
func (a *assignment) decide(svc *service) verdict {
	v := verdict{service: svc}
	ports := slices.SortedFunc(slices.Values(svc.ports), comparePorts)
	candidates := 0
	for _, f := range svc.families {
		var given []ingress
		for _, n := range a.nodes {
			if (svc.pool != "" && n.pool != svc.pool) || (svc.local && !svc.endpoints[f][n.name]) {
				continue
			}
			for _, addr := range n.addresses[f] {
				if slices.ContainsFunc(given, func(i ingress) bool { return i.addr == addr }) {
					continue // nodes behind one address
				}
				candidates++
				if b, blocked := a.blocker(svc, n, addr, ports); blocked {
					v.blocked = append(v.blocked, b)
					continue
				}
				for _, p := range ports {
					a.taken[claim{addr, p}] = svc
				}
				given = append(given, ingress{addr: addr, ports: ports})
			}
		}
		slices.SortFunc(given, func(a, b ingress) int { return a.addr.Compare(b.addr) })
		v.ingress = append(v.ingress, given...)
	}
	if candidates == 0 {
		v.nowhere = a.nowhere(svc)
	}
	return v
}

// blocker finds the first port of the Service that it can't have on the node's address.
func (a *assignment) blocker(svc *service, n *node, addr netip.Addr, ports []port) (blocker, bool) {
	for _, p := range ports {
		b := blocker{node: n.name, addr: addr, port: p}
		c := claim{addr, p}
		if use, is := a.reserved[p]; is {
			b.holder, b.reserved = "the node itself ("+use+")", true
			return b, true
		}
		if owner := a.taken[c]; owner != nil && owner != svc {
			b.holder = "Service " + owner.key.String()
			return b, true
		}
		if svc.holds(addr, p) {
			continue
		}
		if owner := another(a.external[c], svc); owner != nil {
			b.holder = "Service " + owner.key.String() + " (as its external IP)"
			return b, true
		}
		if owner := another(a.nodePorts[p], svc); owner != nil {
			b.holder = "Service " + owner.key.String() + " (as its node port)"
			return b, true
		}
		for _, h := range n.hostPorts {
			if h.port == p && (h.addr.IsUnspecified() || h.addr == addr) {
				b.holder = "pod " + h.pod.String() + " (as its host port)"
				return b, true
			}
		}
		holder, looked := n.holders[p]
		if !looked {
			return b, true
		}
		if holder != "" {
			b.holder = "process " + holder
			return b, true
		}
	}
	return blocker{}, false
}

func another(owners []*service, svc *service) *service {
	for _, o := range owners {
		if o != svc {
			return o
		}
	}
	return nil
}

// nowhere says why no node can serve the Service: the first condition that leaves none.
func (a *assignment) nowhere(svc *service) string {
	nodes := a.nodes
	if len(nodes) == 0 {
		return "no node is Ready and open to load balancers"
	}
	if svc.pool != "" {
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n.pool != svc.pool })
		if len(nodes) == 0 {
			return fmt.Sprintf("no Ready node is in the pool %q (label %s)", svc.pool, labelPool)
		}
	}
	if !slices.ContainsFunc(nodes, func(n *node) bool {
		return slices.ContainsFunc(svc.families, func(f family) bool { return len(n.addresses[f]) > 0 })
	}) {
		return fmt.Sprintf("no node has an address of %v", svc.families)
	}
	return "no eligible node has a ready endpoint, which externalTrafficPolicy: Local asks for"
}
