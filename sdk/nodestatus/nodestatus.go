// Package nodestatus is the form of the two objects in which a cluster shows its
// components, without any dependency, so that a component can read them with whatever
// client it has:
//
//	NodeComponents  one a node, named like it, written by the node on change: how its
//	                components fare, where they serve, who holds its ports
//	Component       one a component of the cluster, summed up by a server:
//	                what `kubectl get components` shows
//
// Both are cluster-scoped, of the group Group in the version Version.
package nodestatus

import "time"

// The objects' coordinates in the API.
const (
	Group   = "k3m.io"
	Version = "v1alpha1"

	NodeComponentsKind     = "NodeComponents"
	NodeComponentsResource = "nodecomponents"
	ComponentKind          = "Component"
	ComponentResource      = "components"
)

// NodeComponents is the content of a NodeComponents object below its metadata.
type NodeComponents struct {
	Status NodeStatus `json:"status"`
}

// NodeStatus is what a node says of itself.
type NodeStatus struct {
	// PodGateways are the node's addresses on the pod network, where components serve.
	PodGateways []string `json:"podGateways,omitempty"`
	// NodeIPs are the node's own addresses.
	NodeIPs []string `json:"nodeIPs,omitempty"`
	// Components are those that the node runs, by ID.
	Components []ComponentState `json:"components,omitempty"`
	// Ports are the ports that Services of type LoadBalancer ask for on this node, and
	// whether a process of the host holds them. A port that is not listed was not looked
	// at yet.
	Ports []PortHolder `json:"ports,omitempty"`
}

// ComponentState is how one component fares on one node.
type ComponentState struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	// State is one of package components' states: "Ready", "Degraded", "CrashLoop", ….
	State string `json:"state"`
	// Serving tells whether the component's process lives and has been ready.
	Serving bool `json:"serving"`
	// Reason says why it is not Ready.
	Reason string `json:"reason,omitempty"`
	// Since is when it came into the state.
	Since time.Time `json:"since"`
	// Restarts counts the processes after the first since the node's core started.
	Restarts int `json:"restarts"`
	// LastError is how the last process that failed ended.
	LastError     string    `json:"lastError,omitempty"`
	LastErrorTime time.Time `json:"lastErrorTime,omitzero"`
	// Labels are those that a NetworkPolicy sees the component with, in kube-system.
	Labels map[string]string `json:"labels,omitempty"`
	// Endpoints are where it serves; none unless Serving.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// Endpoint is where a component serves a Service; see sdk.Endpoint.
type Endpoint struct {
	// Service is "<namespace>/<name>".
	Service   string   `json:"service"`
	Addresses []string `json:"addresses"`
	Ports     []Port   `json:"ports"`
}

// Port is a port of an Endpoint.
type Port struct {
	Name        string `json:"name,omitempty"`
	Protocol    string `json:"protocol"`
	Port        uint16 `json:"port"`
	AppProtocol string `json:"appProtocol,omitempty"`
}

// PortHolder says who holds a port of the node.
type PortHolder struct {
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	// Holder is a process of the host that listens there on another address than a
	// loopback one, "nginx (pid 4711)"; empty when the port is free.
	Holder string `json:"holder,omitempty"`
}

// Component is the content of a Component object below its metadata.
type Component struct {
	Spec   ComponentSpec   `json:"spec"`
	Status ComponentStatus `json:"status"`
}

// ComponentSpec is what a component is.
type ComponentSpec struct {
	// Kind and Name together are the ID, which is the object's name.
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// Scope is "node" or "server".
	Scope   string `json:"scope"`
	Summary string `json:"summary,omitempty"`
	// Labels are those that a NetworkPolicy sees the component with, in kube-system, from a
	// server's own record of it: no node has a say in them.
	Labels map[string]string `json:"labels,omitempty"`
}

// ComponentStatus is how a component fares in the cluster.
type ComponentStatus struct {
	// State is "Ready" when it is on all of its nodes, else the state of the node where
	// it fares worst.
	State string `json:"state"`
	// Ready is "<ready nodes>/<nodes>".
	Ready string `json:"ready"`
	// Restarts is the sum over the nodes.
	Restarts int `json:"restarts"`
	// Reason and LastError are those of the node where it fares worst.
	Reason    string `json:"reason,omitempty"`
	LastError string `json:"lastError,omitempty"`
	// Nodes are the states on the nodes, by name.
	Nodes []ComponentNode `json:"nodes,omitempty"`
	// Objects are those that a server keeps for the component.
	Objects []ObjectReference `json:"objects,omitempty"`
}

// ComponentNode is how a component fares on one node.
type ComponentNode struct {
	Node     string    `json:"node"`
	State    string    `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	// LastError is how the last process that failed there ended.
	LastError string `json:"lastError,omitempty"`
}

// ObjectReference names an object of the API.
type ObjectReference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}
