package main

import (
	"slices"
	"sync"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/sdk"
)

// live is what of a server's plan changes while it runs. It is safe for use by several
// goroutines.
type live struct {
	turn sync.Mutex // held by the one that changes it, from the reading of the files on

	mu      sync.Mutex
	plan    *plan
	allowed []sdk.Info // that may have an identity: the selection's, in a change also the next one's
	later   []string   // options that the files say otherwise, for the next start
	owed    bool       // rights of components that went are to be taken away: the last try failed
}

func newLive(p *plan) *live { return &live{plan: p, allowed: p.selection.Infos()} }

// inForce is the plan whose selection and configurations run.
func (l *live) inForce() *plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.plan
}

// find is an allowed component's info.
func (l *live) find(id string) (sdk.Info, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.allowed, func(info sdk.Info) bool { return info.ID() == id })
	if i < 0 {
		return sdk.Info{}, false
	}
	return l.allowed[i], true
}

// allow lets these components have an identity, and no others.
func (l *live) allow(infos []sdk.Info) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allowed = infos
}

// use makes p the plan in force.
func (l *live) use(p *plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plan, l.allowed = p, p.selection.Infos()
}

func (l *live) setLater(options []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.later = options
}

// waiting are the options that wait for the next start.
func (l *live) waiting() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.later
}

func (l *live) setOwed(owed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owed = owed
}

// owes tells whether rights of components that went are to be taken away.
func (l *live) owes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owed
}

// either is every component of two selections once; of one that is in both, the second's info.
func either(before, after components.Selection) []sdk.Info {
	infos := after.Infos()
	for _, info := range before.Infos() {
		if !slices.ContainsFunc(infos, func(other sdk.Info) bool { return other.ID() == info.ID() }) {
			infos = append(infos, info)
		}
	}
	return infos
}

// appliedLive are the options whose changes a running server takes up; all others are for the
// next start.
var appliedLive = []string{"enable", "disable", "flannel-backend"}

// forLater are the options that differ from those that the server was started with and that it
// can't take up.
func forLater(started, now *config.Config) []string {
	return slices.DeleteFunc(started.Changed(now), func(o string) bool { return slices.Contains(appliedLive, o) })
}
