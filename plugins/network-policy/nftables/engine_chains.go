package nftables

import (
	"slices"
	"strings"
)

// chain is a chain of the kernel. Its content never changes: another content is another
// chain.
type chain struct {
	*rules
	refs       int
	programmed bool
	sets       []*set
	jumps      []*chain // of a profile: the policies' chains
}

// acquirePolicy takes a reference to the chain of a policy in one direction.
func (e *engine) acquirePolicy(r *rules) *chain {
	c, there := e.chains[r.name]
	if !there {
		c = &chain{rules: r}
		e.chains[r.name] = c
		for _, s := range r.sets {
			c.sets = append(c.sets, e.acquireSet(s))
		}
	}
	c.refs++
	e.changedChains[r.name] = c
	return c
}

// acquireProfile takes a reference to the chain of the pods that are selected by policies
// with these rules in one direction: the union of what these allow, and nothing else.
func (e *engine) acquireProfile(d direction, policies []*rules) *chain {
	policies = slices.DeleteFunc(policies, func(r *rules) bool { return len(r.lines) == 0 })
	slices.SortFunc(policies, func(a, b *rules) int { return strings.Compare(a.name, b.name) })
	policies = slices.CompactFunc(policies, func(a, b *rules) bool { return a.name == b.name })
	var lines []string
	for _, r := range policies {
		lines = append(lines, "jump "+r.name)
	}
	own := newRules([]string{"pod-in-", "pod-out-"}[d], append(lines, "counter name "+denied[d]+" drop"), nil)
	c, there := e.chains[own.name]
	if !there {
		c = &chain{rules: own}
		e.chains[own.name] = c
		for _, r := range policies {
			c.jumps = append(c.jumps, e.acquirePolicy(r))
		}
	}
	c.refs++
	e.changedChains[own.name] = c
	return c
}

// releaseChain drops a reference. A chain without any goes with the next transaction.
func (e *engine) releaseChain(c *chain) {
	c.refs--
	e.changedChains[c.name] = c
}

// collect forgets what nothing refers to any more, and gives what the kernel has of it:
// chains before those that they jump to.
func (e *engine) collect() (chains []*chain, sets []*set) {
	for again := true; again; {
		again = false
		for name, c := range e.changedChains {
			if c.refs > 0 || e.chains[name] != c {
				continue
			}
			delete(e.chains, name)
			for _, jump := range c.jumps {
				e.releaseChain(jump)
			}
			for _, s := range c.sets {
				e.releaseSet(s)
			}
			chains = append(chains, c)
			again = true
		}
	}
	for name, s := range e.changedSets {
		if s.refs == 0 && e.sets[name] == s {
			e.forgetSet(s)
			sets = append(sets, s)
		}
	}
	// Profiles refer to policies' chains, never the other way round.
	slices.SortFunc(chains, func(a, b *chain) int {
		if len(a.jumps) > 0 != (len(b.jumps) > 0) {
			return len(b.jumps) - len(a.jumps)
		}
		return strings.Compare(a.name, b.name)
	})
	slices.SortFunc(sets, func(a, b *set) int { return strings.Compare(a.id, b.id) })
	return chains, sets
}
