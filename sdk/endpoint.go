package sdk

import "net/netip"

// Protocol is the transport of an EndpointPort, by its name in the Kubernetes API.
type Protocol string

// The protocols.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// Endpoint is where a component serves a Service. Clients get any of the nodes' endpoints, or those
// of their own node first if the Service says trafficDistribution: PreferSameNode. A Service with a
// selector is not the component's: its endpoints are left to Kubernetes.
type Endpoint struct {
	// Service is "<namespace>/<name>", one of Info.Services.
	Service string
	// Addresses are this node's: pod gateways (see Facts.PodGateways), or node IPs where
	// the network of pods is not k3m's. All are of one family; an Endpoint for each.
	Addresses []netip.Addr
	// Ports are the Service's, by name.
	Ports []EndpointPort
}

// EndpointPort is a port of an Endpoint.
type EndpointPort struct {
	// Name is that of the Service's port; empty when the Service has a single port
	// without a name.
	Name     string
	Protocol Protocol
	// Port is where the component listens, whatever the Service's own port is.
	Port uint16
	// AppProtocol is the EndpointSlice's appProtocol; mostly empty.
	AppProtocol string
}
