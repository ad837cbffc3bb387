package clustercomponents

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// stateLost is the state of a component on a node that the cluster has given up.
const stateLost = "NodeLost"

// stateReady is the state in which nothing is wrong.
const stateReady = "Ready"

// severity orders the states of components, the best first. A state that is not listed, of a
// newer node, is as bad as Degraded.
var severity = []string{
	stateReady, "Removed", "Stopped", "Stopping", "Launching", "Waiting", "Starting",
	"Degraded", "Exited", "Backoff", stateLost, "CrashLoop", "Refused",
}

func severityOf(state string) int {
	if i := slices.Index(severity, state); i >= 0 {
		return i
	}
	return slices.Index(severity, "Degraded")
}

// summarize is what the cluster knows of a component from what the nodes say. Nodes that are
// gone say nothing.
func (s *snapshot) summarize(info sdk.Info) nodestatus.Component {
	c := nodestatus.Component{
		Spec: nodestatus.ComponentSpec{
			Kind: info.Kind, Name: info.Name, Version: info.Version, Scope: string(info.Scope), Summary: info.Summary,
			Labels: info.Labels,
		},
		Status: nodestatus.ComponentStatus{State: "Waiting", Reason: "no node has told of it yet"},
	}
	var worst *nodestatus.ComponentNode
	ready := 0
	for _, node := range slices.Sorted(maps.Keys(s.reports)) {
		facts, there := s.nodes[node]
		if !there {
			continue
		}
		for _, state := range s.reports[node].status.Components {
			if state.ID != info.ID() {
				continue
			}
			n := nodestatus.ComponentNode{
				Node: node, State: state.State, Reason: state.Reason, Since: state.Since, Restarts: state.Restarts, LastError: state.LastError,
			}
			if facts.lost {
				n.State, n.Reason = stateLost, "the node does not answer"
			}
			if n.State == stateReady {
				ready++
			}
			c.Status.Restarts += n.Restarts
			c.Status.Nodes = append(c.Status.Nodes, n)
		}
	}
	for i := range c.Status.Nodes {
		if n := &c.Status.Nodes[i]; worst == nil || cmp.Compare(severityOf(n.State), severityOf(worst.State)) > 0 {
			worst = n
		}
	}
	c.Status.Ready = fmt.Sprintf("%d/%d", ready, len(c.Status.Nodes))
	if worst != nil {
		c.Status.State, c.Status.Reason, c.Status.LastError = worst.State, worst.Reason, worst.LastError
	}
	return c
}
