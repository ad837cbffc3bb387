// Package clustercomponents is what a cluster knows of its components: how each fares on each
// node, where it serves, and what objects it owns.
//
//	node.go     every node writes one NodeComponents object, on change
//	cluster.go  a server reads them all, and keeps what follows from them:
//	keeper.go     one Component object a component: `kubectl get components`
//	summary.go    what is in it; events.go: the Events on it
//	slices.go     the EndpointSlices of the Services that components serve; claims.go: who may
//	              have which address
//	objects.go    the objects of the components' Infos, applied and removed; expand.go
//	install.go  the definitions of the two kinds, and a node's right to write its own object
//
// Nothing here knows a component: Infos are handed in with SetSelected. See docs/adr/0005 for why
// the core writes what components could.
package clustercomponents
