// Package health is what the parts of a node say of themselves: what each waits for, that it
// works, or what is wrong and how to mend it. The service manager's status line and
// `k3m status` read the same Board.
//
// Components are not on it: package components keeps their states.
package health

import (
	"slices"
	"sync"
	"time"
)

// State is how a part fares.
//
//	Waiting ─► Working ─► OK ◄─► Degraded
//	                      └────► Failed
type State string

// The states of a part.
const (
	// Waiting parts have not begun: the message names what they wait for.
	Waiting State = "Waiting"
	// Working parts have begun and don't serve yet.
	Working State = "Working"
	// OK parts do all of their work.
	OK State = "OK"
	// Degraded parts do some of their work; an operator should look.
	Degraded State = "Degraded"
	// Failed parts do none of it.
	Failed State = "Failed"
)

// Condition is what a part says of itself.
type Condition struct {
	// Part is the part's name, as an operator would say it: "datastore", "manifests".
	Part  string `json:"part"`
	State State  `json:"state"`
	// Message is one sentence in lower case without a full stop; it may be empty when OK.
	Message string `json:"message,omitempty"`
	// Fix is what to do about a Degraded or Failed part: one imperative sentence.
	Fix string `json:"fix,omitempty"`
	// Since is when the part came into this state.
	Since time.Time `json:"since"`
}

// Board keeps the latest condition of every part. All methods may be called by any number of
// goroutines; on a nil Board, Set and Remove do nothing.
type Board struct {
	mu         sync.Mutex
	conditions []Condition
	changed    chan struct{}
}

// NewBoard makes a board without parts.
func NewBoard() *Board { return &Board{changed: make(chan struct{})} }

// Set replaces the part's condition; Since is filled in. Setting what is there already changes
// nothing and wakes nobody.
func (b *Board) Set(c Condition) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.Since = time.Now()
	i := b.index(c.Part)
	if i < 0 {
		b.conditions = append(b.conditions, c)
	} else {
		old := b.conditions[i]
		if old.State == c.State {
			c.Since = old.Since
		}
		if old == c {
			return
		}
		b.conditions[i] = c
	}
	b.wake()
}

// Remove takes a part off the board.
func (b *Board) Remove(part string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := b.index(part); i >= 0 {
		b.conditions = slices.Delete(b.conditions, i, i+1)
		b.wake()
	}
}

// Conditions are those of all parts, in the order in which each was first set.
func (b *Board) Conditions() []Condition {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.conditions)
}

// Changed is closed at the next change. Take it before reading Conditions, so that none is
// missed.
func (b *Board) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *Board) index(part string) int {
	return slices.IndexFunc(b.conditions, func(c Condition) bool { return c.Part == part })
}

func (b *Board) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}
