package nodeip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// snapshot is all that a decision depends on.
type snapshot struct {
	services []*service
	nodes    []*node
}

// service is what matters of a Service.
type service struct {
	key     types.NamespacedName
	uid     types.UID
	version string
	created time.Time

	// mine: it is of type LoadBalancer and of a class that the component serves.
	mine bool
	// abandoned: it is not, or not any more, but its status is what the component wrote.
	abandoned bool
	// pool is the one that it names, or the configured one.
	pool string
	// families are those in which it is served, the preferred one first.
	families []family
	ports    []port
	// local: only nodes with an endpoint may have its traffic, those in endpoints, the
	// names of nodes by family.
	local     bool
	endpoints map[family]map[string]bool

	// nodePorts and externalIPs are what kube-proxy takes for it beside our addresses.
	nodePorts   []port
	externalIPs []netip.Addr

	// current is its status.
	current []ingress
}

// before tells which of two Services is served first when both want a port: the older one.
func (s *service) before(other *service) int {
	return cmp.Or(s.created.Compare(other.created), cmp.Compare(s.key.Namespace, other.key.Namespace),
		cmp.Compare(s.key.Name, other.key.Name))
}

// holds tells whether the Service was given the address for the port.
func (s *service) holds(addr netip.Addr, p port) bool {
	return slices.ContainsFunc(s.current, func(i ingress) bool { return i.addr == addr && slices.Contains(i.ports, p) })
}

// ingress is an entry of a Service's status.
type ingress struct {
	addr netip.Addr
	// ports are those that the address was given for, sorted.
	ports []port
	// other: what the entry says beside is not what the component writes.
	other bool
}

func (i ingress) equal(other ingress) bool {
	return i.addr == other.addr && i.other == other.other && slices.Equal(i.ports, other.ports)
}

// node is what matters of a Node.
type node struct {
	name string
	// ready: the Node is Ready and may be a load balancer's target.
	ready bool
	// enabled: it has the label that limits load balancing to nodes with it.
	enabled bool
	pool    string
	// addresses are those that it gives, by family, the preferred ones first.
	addresses map[family][]netip.Addr
	// holders are the processes that hold ports of the node, empty for a free port; a port
	// that is missing was not looked at yet.
	holders map[port]string
	// hostPorts are those of its pods.
	hostPorts []hostPort
}

// hostPort is one of a pod's.
type hostPort struct {
	// addr is unspecified when all addresses of the node are meant.
	addr netip.Addr
	port port
	pod  types.NamespacedName
}

// family is that of an IP address.
type family string

const (
	ipv4 family = "IPv4"
	ipv6 family = "IPv6"
)

func familyOf(addr netip.Addr) family {
	if addr.Is4() {
		return ipv4
	}
	return ipv6
}

// port is a number and the protocol's name in the API: "TCP", "UDP", "SCTP".
type port struct {
	number   uint16
	protocol string
}

func (p port) String() string { return fmt.Sprintf("%d/%s", p.number, p.protocol) }

func comparePorts(a, b port) int {
	return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.protocol, b.protocol))
}
