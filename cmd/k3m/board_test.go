package main

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// said is the last word of a node.
type said struct{ status nodestatus.NodeStatus }

func (s *said) Update(change func(*nodestatus.NodeStatus)) { change(&s.status) }

// What a node says comes from two sides, its components and its ports: neither overwrites the other.
func TestBoardKeepsBothSides(t *testing.T) {
	b, node := newBoard(), &said{}
	components := func(state string) []nodestatus.ComponentState {
		return []nodestatus.ComponentState{{ID: "servicelb.nodeip", State: state}}
	}
	ports := func(port uint16) []nodestatus.PortHolder {
		return []nodestatus.PortHolder{{Protocol: "TCP", Port: port, Holder: fmt.Sprint("process ", port)}}
	}
	setComponents := func(state string) {
		b.updateNode(func(st *nodestatus.NodeStatus) { st.Components = components(state) })
	}
	want := func(state string, port uint16) {
		t.Helper()
		if got, want := node.status, (nodestatus.NodeStatus{Components: components(state), Ports: ports(port)}); !reflect.DeepEqual(got, want) {
			t.Errorf("the node says %+v, want %+v", got, want)
		}
	}
	b.setPorts(ports(80)) // before the node has joined
	setComponents("Starting")
	b.join(node)
	want("Starting", 80)
	setComponents("Ready")
	want("Ready", 80)
	b.setPorts(ports(443))
	want("Ready", 443)
	setComponents("Backoff")
	want("Backoff", 443)
}
