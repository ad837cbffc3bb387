package components

import (
	"slices"

	"github.com/k3m-io/k3m/sdk"
)

// Cardinality says how many components of a kind may run on a node.
type Cardinality string

// The cardinalities.
const (
	ExactlyOne Cardinality = "exactly one"
	AtMostOne  Cardinality = "at most one"
	Many       Cardinality = "any number"
)

// None is the name that leaves a kind empty: "cni=none".
const None = "none"

// Kind is a role that a component fills.
type Kind struct {
	Name        string
	Cardinality Cardinality
	// NoneHint is set when a kind of which one is needed may be left to the user with
	// "<kind>=none"; it says what that means.
	NoneHint string
	// Summary is what the kind gives, one line.
	Summary string
}

// kinds are sorted as they are shown: what a node can't be without, first.
var kinds = []Kind{
	{Name: "runtime", Cardinality: ExactlyOne, Summary: "runs containers: a CRI endpoint for the kubelet"},
	{Name: "cni", Cardinality: ExactlyOne, NoneHint: "leaves the pod network to you", Summary: "the pod network"},
	{Name: "network-policy", Cardinality: AtMostOne, Summary: "enforces NetworkPolicy objects"},
	{Name: "dns", Cardinality: AtMostOne, Summary: "cluster DNS"},
	{Name: "ingress", Cardinality: Many, Summary: "serves Ingress objects"},
	{Name: "servicelb", Cardinality: AtMostOne, Summary: "gives Services of type LoadBalancer an address"},
	{Name: "local-storage", Cardinality: AtMostOne, Summary: "the default StorageClass, on the node's own disk"},
	{Name: "metrics-server", Cardinality: AtMostOne, Summary: "resource metrics, for kubectl top and autoscaling"},
	{Name: "addon", Cardinality: Many, Summary: "anything else"},
}

// Kinds returns all kinds in the order in which they are shown.
func Kinds() []Kind { return slices.Clone(kinds) }

// KindNamed returns the kind of that name.
func KindNamed(name string) (Kind, bool) {
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

// KindNames returns the names of all kinds.
func KindNames() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Name
	}
	return names
}

// isRuntime: pods are the children of a runtime, so it keeps what they may need.
func isRuntime(info sdk.Info) bool { return info.Kind == "runtime" }
