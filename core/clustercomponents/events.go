package clustercomponents

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// note is an Event to be.
type note struct{ kind, reason, message string }

// past is what of a component's past on a node decides on Events.
type past struct {
	failing   bool      // its end is told too
	lastError time.Time // of the last failure that was seen
}

// troubles are the states that an Event tells of.
var troubles = []string{"Degraded", "CrashLoop", "Refused", stateLost}

// notesOn are the Events on a component's way from one state of its nodes to the next. errorTimes
// are when the component failed last, by node.
func notesOn(before, after []nodestatus.ComponentNode, errorTimes map[string]time.Time, history map[string]*past) []note {
	var notes []note
	for _, n := range after {
		var old nodestatus.ComponentNode
		if i := slices.IndexFunc(before, func(b nodestatus.ComponentNode) bool { return b.Node == n.Node }); i >= 0 {
			old = before[i]
		}
		p := history[n.Node]
		if p == nil { // what was before this server started was told by the one before
			p = &past{lastError: errorTimes[n.Node]}
			history[n.Node] = p
		}
		failed := errorTimes[n.Node].After(p.lastError)
		p.lastError = errorTimes[n.Node]
		why := n.Reason
		if why == "" {
			why = n.LastError
		}
		trouble := slices.Contains(troubles, n.State)
		switch {
		case trouble && n.State != old.State:
			notes = append(notes, note{corev1.EventTypeWarning, n.State, fmt.Sprintf("on node %s: %s", n.Node, why)})
		case failed:
			notes = append(notes, note{corev1.EventTypeWarning, "Failed", fmt.Sprintf("on node %s: %s", n.Node, n.LastError)})
		}
		p.failing = p.failing || trouble || failed
		if n.State == stateReady && p.failing {
			notes = append(notes, note{corev1.EventTypeNormal, stateReady, fmt.Sprintf("ready again on node %s", n.Node)})
			p.failing = false
		}
	}
	return notes
}

// errorTimes are when a component failed last, by node.
func (s *snapshot) errorTimes(id string) map[string]time.Time {
	times := map[string]time.Time{}
	for node, r := range s.reports {
		for _, c := range r.status.Components {
			if c.ID == id {
				times[node] = c.LastErrorTime
			}
		}
	}
	return times
}
