package nftables

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// voidTime is how long a pod's claim to an address that was released meanwhile does not
// count. The kubelet tells within a second or two that the pod is gone or has got another
// address; when it still says the same after this time, the pod got the same one again.
const voidTime = 10 * time.Second

// starting knows what a pod's status does not say yet. The kubelet reports an address a
// second or so after the pod got it; host-local's records show it at once, but not whose it
// is. Whose it can be is known: one of the pods on this node that have none yet. As long as
// nobody knows more, a new address gets what all of these would get.
type starting struct {
	reserved map[netip.Addr]struct{}
	voids    map[netip.Addr]void
	guests   map[netip.Addr][]guest // who may have an address without an owner
}

// void is a claim that does not count.
type void struct {
	uids  []string // of the pods
	until time.Time
}

// guest is a pod without an address.
type guest struct {
	objectKey
	uid    string
	labels labels.Set
}

func newStarting() starting {
	return starting{
		reserved: map[netip.Addr]struct{}{}, voids: map[netip.Addr]void{}, guests: map[netip.Addr][]guest{},
	}
}

// reserve takes in that an address was handed out.
func (e *engine) reserve(addr netip.Addr) {
	if e.has(addr) {
		e.starting.reserved[addr] = struct{}{}
		e.dirty[addr] = struct{}{}
	}
}

// release takes in that an address was given back: whoever says that it is his is wrong.
func (e *engine) release(addr netip.Addr, now time.Time) {
	if _, was := e.starting.reserved[addr]; !was {
		return
	}
	delete(e.starting.reserved, addr)
	delete(e.starting.guests, addr)
	e.released = append(e.released, addr)
	v := void{until: now.Add(voidTime)}
	for _, p := range e.claimants[addr] {
		if p.local {
			v.uids = append(v.uids, p.uid)
		}
	}
	if len(v.uids) > 0 {
		e.starting.voids[addr] = v
	}
	e.settle(addr)
}

// expire lets claims count again whose time is over, and tells when the next one is.
func (e *engine) expire(now time.Time) (next time.Time) {
	for addr, v := range e.starting.voids {
		switch {
		case !now.Before(v.until):
			delete(e.starting.voids, addr)
			e.settle(addr)
		case next.IsZero() || v.until.Before(next):
			next = v.until
		}
	}
	return next
}

// unknown are the addresses that were handed out to nobody knows whom, and that nobody has
// looked for yet.
func (e *engine) unknown() []netip.Addr {
	var addrs []netip.Addr
	for addr := range e.starting.reserved {
		if _, looked := e.starting.guests[addr]; !looked && e.owner(addr) == nil {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// suspect takes in all pods of this node, as the API had them after addrs were handed out.
// The kubelet starts no pod that the API does not have (static pods apart), so the owner of
// each address is among those that have none.
func (e *engine) suspect(addrs []netip.Addr, pods []*pod) {
	var guests []guest
	for _, p := range pods {
		if !slices.ContainsFunc(p.claims, func(addr netip.Addr) bool {
			_, reserved := e.starting.reserved[addr]
			return reserved && !e.starting.voided(addr, p.uid)
		}) {
			guests = append(guests, guest{p.objectKey, p.uid, p.labels})
		}
	}
	for _, addr := range addrs {
		if _, still := e.starting.reserved[addr]; still && e.owner(addr) == nil {
			e.starting.guests[addr] = guests
			e.dirty[addr] = struct{}{}
		}
	}
}

// void says whether p's claim to addr does not count.
func (s *starting) void(addr netip.Addr, p *pod) bool { return p.local && s.voided(addr, p.uid) }

func (s *starting) voided(addr netip.Addr, uid string) bool {
	v, there := s.voids[addr]
	return there && slices.Contains(v.uids, uid)
}

// moved takes in that old became p, nil when it is gone: claims that it no longer makes
// need not be void.
func (s *starting) moved(old, p *pod) {
	for _, addr := range old.claims {
		if v, there := s.voids[addr]; there && (p == nil || !slices.Contains(p.claims, addr)) {
			v.uids = slices.DeleteFunc(slices.Clone(v.uids), func(uid string) bool { return uid == old.uid })
			s.voids[addr] = v
			if len(v.uids) == 0 {
				delete(s.voids, addr)
			}
		}
	}
}

// settled takes in which addresses p says are its own: it is no guest elsewhere.
func (e *engine) settled(p *pod) {
	if !p.local || len(p.addrs) == 0 {
		return
	}
	for _, addr := range p.addrs {
		delete(e.starting.guests, addr)
	}
	for addr, guests := range e.starting.guests {
		if slices.ContainsFunc(guests, func(g guest) bool { return g.uid == p.uid }) {
			e.starting.guests[addr] = slices.DeleteFunc(slices.Clone(guests), func(g guest) bool { return g.uid == p.uid })
			e.dirty[addr] = struct{}{}
		}
	}
}

// touch has the verdicts of all addresses without an owner looked at.
func (s *starting) touch(dirty map[netip.Addr]struct{}) {
	for addr := range s.guests {
		dirty[addr] = struct{}{}
	}
}

// guestVerdicts are what all pods that may have addr would get; where that differs, in one
// direction, nothing is known. What nobody isolates need not be the same: who is isolated
// gets less.
func (e *engine) guestVerdicts(addr netip.Addr) [2]verdict {
	guests := e.starting.guests[addr]
	var result [2]verdict
	for _, d := range directions {
		for i, g := range guests {
			v := e.verdictsOf(func(yield func(*policy) bool) {
				for p := range e.policiesOf[g.namespace] {
					if p.pods.Matches(g.labels) && !yield(p) {
						return
					}
				}
			})[d]
			switch {
			case i == 0 || v.isolated && !result[d].isolated:
				result[d] = v
			case v.isolated && !sameRules(v.policies, result[d].policies):
				result[d] = verdict{}
			}
			if !result[d].known {
				break
			}
		}
	}
	return result
}

func sameRules(a, b []*rules) bool {
	names := func(all []*rules) map[string]struct{} {
		set := map[string]struct{}{}
		for _, r := range all {
			set[r.name] = struct{}{}
		}
		return set
	}
	return maps.Equal(names(a), names(b))
}

// verdictsOf is what a pod gets that these policies select.
func (e *engine) verdictsOf(policies iter.Seq[*policy]) [2]verdict {
	v := [2]verdict{{known: true}, {known: true}}
	for p := range policies {
		for _, d := range directions {
			if p.isolates[d] {
				v[d].isolated = true
				v[d].policies = append(v[d].policies, p.rules[d])
			}
		}
	}
	return v
}
