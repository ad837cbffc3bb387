// Package ports tells who holds the ports of this node that Services of type LoadBalancer
// ask for. A service load balancer gives a Service the node's address, and from then on
// kube-proxy takes the packets to that address and port before any process sees them: so
// somebody who may look must have looked, and the load balancer itself, which runs without
// rights and on servers alone, may not.
//
// watch.go waits for Services and says what changed; sockets.go reads which sockets
// listen; processes.go finds out whose they are. What is found goes into the node's
// NodeComponents object (see package sdk/nodestatus), which others write.
package ports
