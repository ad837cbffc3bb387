// Package nodeip is the component servicelb.nodeip: it gives Services of type LoadBalancer
// the addresses of nodes, and kube-proxy's own rules on these nodes carry the traffic.
//
// Start with assign.go: a function from what the cluster looks like (model.go) to what
// each Service shall have, and why not more. controller.go calls it when something
// changed; cluster.go makes the picture from watches (watches.go, api.go), write.go brings
// the Services' statuses to what was decided, events.go tells people, metrics.go
// Prometheus. config.go is what an operator may set, plugin.go what the host knows.
//
// Nothing is kept outside of the API: a Service's status says which ports its addresses
// were given for, so a process that starts anew goes on where the last one was. Services
// get no finalizer, since nothing is left to clean up when one is deleted: its status goes
// with it, and kube-proxy removes its rules.
package nodeip
