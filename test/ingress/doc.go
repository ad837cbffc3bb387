// Package ingress is the conformance suite of k3m's ingress controllers: the same tests for
// each of them, in clusters of package harness, with real pods behind and a client on a host
// outside of the cluster.
//
// TestConformance has a cluster for each controller, in which the features of the Ingress API
// are tried one after another (conformance_test.go names them; hosts_test.go, paths_test.go, tls_test.go and
// so on hold them), and then its faults. What needs another set of components has a cluster
// of its own: two controllers at once and swaps (choice_test.go), and ports that somebody else
// holds (ports_test.go).
//
// The features are those of kubernetes-sigs/ingress-controller-conformance, and what people
// take for granted of an ingress besides. A controller that can't do one says so in
// controllers_test.go, with the reason.
package ingress
