package nodeip

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// The labels of nodes, and of Services, that choose nodes.
const (
	labelEnable = "svc.k3m.io/enable-lb"
	labelPool   = "svc.k3m.io/lb-pool"
)

// class is the loadBalancerClass of the component.
const class = "k3m.io/nodeip"

// labelServer is on the Nodes of servers. A kubelet can't give it to its own.
const labelServer = "node-role.kubernetes.io/control-plane"

// snapshot makes the picture of the cluster that is decided on. The networks are those of pods
// and Services, in which no node has an address to give.
func (w *watches) snapshot(cfg config, networks []netip.Prefix) snapshot {
	var s snapshot
	var objects []*corev1.Node
	for _, obj := range w.nodes.GetStore().List() {
		if n, ok := obj.(*corev1.Node); ok {
			objects = append(objects, n)
		}
	}
	nodes, owners := map[string]*node{}, ownersOf(objects, networks)
	for _, n := range objects {
		nodes[n.Name] = viewNode(n, cfg, owners)
		s.nodes = append(s.nodes, nodes[n.Name])
	}
	for _, obj := range w.components.GetStore().List() {
		if c, ok := obj.(*nodeComponents); ok && nodes[c.Name] != nil {
			for _, p := range c.Status.Ports {
				nodes[c.Name].holders[port{p.Port, p.Protocol}] = p.Holder
			}
		}
	}
	for _, obj := range w.pods.GetStore().List() {
		if p, ok := obj.(*corev1.Pod); ok && nodes[p.Spec.NodeName] != nil {
			n := nodes[p.Spec.NodeName]
			n.hostPorts = append(n.hostPorts, hostPortsOf(p)...)
		}
	}
	local := map[types.NamespacedName]*service{}
	for _, obj := range w.services.GetStore().List() {
		if svc, ok := obj.(*corev1.Service); ok {
			v := viewService(svc, cfg)
			s.services = append(s.services, v)
			if v.mine && v.local {
				local[v.key] = v
			}
		}
	}
	if len(local) > 0 {
		for _, obj := range w.slices.GetStore().List() {
			if slice, ok := obj.(*discoveryv1.EndpointSlice); ok {
				addEndpoints(local, slice)
			}
		}
	}
	// The order of a store is random, that of a decision is not.
	slices.SortFunc(s.nodes, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	for _, n := range s.nodes {
		slices.SortFunc(n.hostPorts, func(a, b hostPort) int { return strings.Compare(a.pod.String(), b.pod.String()) })
	}
	slices.SortFunc(s.services, (*service).before)
	return s
}

// ownersOf says which node has an address. A node's addresses are what its kubelet says, and
// each goes to Services on all nodes: so none counts that is a pod's, a Service's or no host's at
// all, and where two nodes say the same, the one that was there first has it.
func ownersOf(nodes []*corev1.Node, networks []netip.Prefix) map[netip.Addr]string {
	owners := map[netip.Addr]string{}
	for _, n := range slices.SortedFunc(slices.Values(nodes), func(a, b *corev1.Node) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	}) {
		for _, a := range n.Status.Addresses {
			addr, err := netip.ParseAddr(a.Address)
			if err != nil {
				continue // a host name
			}
			addr = addr.Unmap()
			if addr.Zone() != "" || !addr.IsGlobalUnicast() ||
				slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				continue
			}
			if _, taken := owners[addr]; !taken {
				owners[addr] = n.Name
			}
		}
	}
	return owners
}

func viewNode(n *corev1.Node, cfg config, owners map[netip.Addr]string) *node {
	_, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]
	v := &node{
		name: n.Name, enabled: n.Labels[labelEnable] == "true", pool: n.Labels[labelPool],
		addresses: map[family][]netip.Addr{}, holders: map[port]string{},
	}
	for _, c := range n.Status.Conditions {
		v.ready = v.ready || (c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && !excluded)
	}
	byType := map[corev1.NodeAddressType]map[family][]netip.Addr{}
	for _, a := range n.Status.Addresses {
		addr, err := netip.ParseAddr(a.Address)
		if addr = addr.Unmap(); err != nil || owners[addr] != n.Name {
			continue // a host name, or not the node's
		}
		if byType[a.Type] == nil {
			byType[a.Type] = map[family][]netip.Addr{}
		}
		byType[a.Type][familyOf(addr)] = append(byType[a.Type][familyOf(addr)], addr)
	}
	for _, f := range []family{ipv4, ipv6} {
		external, internal := byType[corev1.NodeExternalIP][f], byType[corev1.NodeInternalIP][f]
		switch {
		case cfg.Addresses == allAddresses:
			v.addresses[f] = append(slices.Clone(external), internal...)
		case cfg.Addresses == internalOnly || len(external) == 0:
			v.addresses[f] = internal
		default:
			v.addresses[f] = external
		}
	}
	return v
}

func hostPortsOf(p *corev1.Pod) []hostPort {
	var ports []hostPort
	for _, c := range p.Spec.Containers {
		for _, cp := range c.Ports {
			addr := netip.IPv4Unspecified()
			if a, err := netip.ParseAddr(cp.HostIP); err == nil {
				addr = a.Unmap()
			}
			ports = append(ports, hostPort{addr: addr, port: port{uint16(cp.HostPort), protocolOf(cp.Protocol)},
				pod: types.NamespacedName{Namespace: p.Namespace, Name: p.Name}})
		}
	}
	return ports
}

func viewService(s *corev1.Service, cfg config) *service {
	v := &service{
		key: types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, uid: s.UID, version: s.ResourceVersion,
		created: s.CreationTimestamp.Time, pool: cfg.DefaultPool,
		local: s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal, endpoints: map[family]map[string]bool{},
	}
	if pool := s.Labels[labelPool]; pool != "" {
		v.pool = pool
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		v.mine = cfg.DefaultClass
		if c := s.Spec.LoadBalancerClass; c != nil {
			v.mine = *c == class
		}
	}
	for _, f := range s.Spec.IPFamilies {
		v.families = append(v.families, family(f))
	}
	for _, p := range s.Spec.Ports {
		v.ports = append(v.ports, port{uint16(p.Port), protocolOf(p.Protocol)})
		if p.NodePort > 0 {
			v.nodePorts = append(v.nodePorts, port{uint16(p.NodePort), protocolOf(p.Protocol)})
		}
	}
	if s.Spec.HealthCheckNodePort > 0 {
		v.nodePorts = append(v.nodePorts, port{uint16(s.Spec.HealthCheckNodePort), "TCP"})
	}
	for _, text := range s.Spec.ExternalIPs {
		if addr, err := netip.ParseAddr(text); err == nil {
			v.externalIPs = append(v.externalIPs, addr.Unmap())
		}
	}
	for _, i := range s.Status.LoadBalancer.Ingress {
		v.current = append(v.current, viewIngress(i))
	}
	v.abandoned = !v.mine && len(v.current) > 0 && slices.ContainsFunc(s.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
		return m.FieldsV1 != nil && bytes.Contains(m.FieldsV1.GetRawBytes(), []byte(`"f:loadBalancer"`))
	})
	return v
}

// viewIngress reads an entry of a Service's status.
func viewIngress(i corev1.LoadBalancerIngress) ingress {
	v := ingress{other: i.Hostname != "" || i.IPMode == nil || *i.IPMode != corev1.LoadBalancerIPModeVIP}
	if addr, err := netip.ParseAddr(i.IP); err == nil {
		v.addr = addr.Unmap()
	} else {
		v.other = true
	}
	for _, p := range i.Ports {
		v.ports = append(v.ports, port{uint16(p.Port), protocolOf(p.Protocol)})
		v.other = v.other || p.Error != nil
	}
	return v
}

// addEndpoints marks the nodes on which the slice's Service, if it is one of local, has
// ready endpoints.
func addEndpoints(local map[types.NamespacedName]*service, slice *discoveryv1.EndpointSlice) {
	svc := local[types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}]
	if svc == nil {
		return
	}
	f := family(slice.AddressType)
	if svc.endpoints[f] == nil {
		svc.endpoints[f] = map[string]bool{}
	}
	for _, e := range slice.Endpoints {
		svc.endpoints[f][*e.NodeName] = true
	}
}

func protocolOf(p corev1.Protocol) string {
	if p == "" {
		return string(corev1.ProtocolTCP)
	}
	return string(p)
}

// leads tells whether the component on the node self is the one that writes. Every
// server's decides the same from the same picture, so a moment with two writers does no
// harm; one suffices, and it is the first by name among those whose node is a server, Ready
// and says that the component serves there. That costs nothing while all is quiet, which a Lease
// that is renewed each two seconds would not; and the addresses of a node that is lost go
// no sooner than the cluster calls it not Ready, which is also when another one takes over.
func (w *watches) leads(self string) bool {
	for _, obj := range w.components.GetStore().List() {
		c, ok := obj.(*nodeComponents)
		if !ok || c.Name >= self || !slices.ContainsFunc(c.Status.Components, serving) {
			continue
		}
		if obj, exists, _ := w.nodes.GetStore().GetByKey(c.Name); exists {
			n, ok := obj.(*corev1.Node)
			if !ok || !slices.ContainsFunc(n.Status.Conditions, ready) {
				continue
			}
			// Any node may say that the component serves there, a stolen agent too, and
			// nobody would write then.
			if _, server := n.Labels[labelServer]; server {
				return false
			}
		}
	}
	return true
}

func serving(c nodestatus.ComponentState) bool { return c.Serving }

func ready(c corev1.NodeCondition) bool { return c.Status == corev1.ConditionTrue }
