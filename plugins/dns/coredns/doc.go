// Package coredns is the component dns.coredns: the cluster's DNS on every node, by
// CoreDNS's own packages inside a plugin process.
//
// plugin.go says who the component is; config.go is what a user may configure; server.go is
// its life, from the first step to the last, in one loop that turns what it learns into a
// Corefile.
//
//	Corefile    corefile.go renders it; custom.go checks what coredns-custom adds to it
//	chain       chain.go has CoreDNS make its plugins of it, without its listeners
//	sockets     listen.go owns them, so that a new chain takes over between two queries
//
// What it learns, each from a watch: Services, EndpointSlices and Namespaces (cluster.go,
// CoreDNS's kubernetes plugin, one for all chains), Nodes (nodes.go), the ConfigMap
// coredns-custom (customwatch.go), the host's resolvers (upstreams.go), and whether
// they lead back here (loop.go).
//
// directives.go lists the plugins of CoreDNS that are in. logging.go and metrics.go hand on
// what they say and count.
package coredns
