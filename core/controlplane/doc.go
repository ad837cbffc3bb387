// Package controlplane runs kube-apiserver, kube-controller-manager and kube-scheduler in this
// process, as they come: their options, flags and Run functions, no changed copy of any.
//
// Order of things, each as early as what it needs is there:
//
//	listen on the API's port ──────────┐
//	authorities, certificates, token ──┼─ kube-apiserver ─ /readyz ─┬─ APIReady
//	datastore ─────────────────────────┘                            ├─ kube-controller-manager
//	                                                                └─ kube-scheduler
//
// The port is open from the start, so who comes early (the node's own agent) waits in the
// handshake for the moment the API server takes over, and needs no back-off.
//
// Stopping goes the other way: controllers and scheduler, the API server, the datastore.
//
// Kubernetes keeps much in global variables: feature gates, the logger, metrics. One process
// can therefore run one control plane once. What the components share is set once, from the
// arguments of all of them, and contradictions are refused (see Args).
//
// The supervisor, which nodes join through, is served on the same port, in front of the API
// server's own handlers: package supervisor.
package controlplane
