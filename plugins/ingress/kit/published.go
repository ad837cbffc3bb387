package kit

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// reasonTaken is the reason of the Events in which a load balancer says that somebody else
// holds a port (servicelb.nodeip's).
const reasonTaken = "PortTaken"

// reasonAssigned is the reason of the Events in which it says which addresses it gave.
const reasonAssigned = "AddressAssigned"

// Published is what became of a component's own Service: its addresses, and why it has
// none. It watches the Service, the Events about it, and its EndpointSlices.
type Published struct {
	watches Watches
	changed func()
	node    string
	ips     []netip.Addr

	mu      sync.Mutex
	service *corev1.Service
	slices  map[string][]string // nodes by slice
	taken   *corev1.Event
	// addressed says that the Service has an address of this node, since is when it got
	// it at last: an Event of before tells of what is over.
	addressed bool
	since     time.Time
}

// PublishedState is a moment's state of a component's Service.
type PublishedState struct {
	// Exists is false until the Service is there.
	Exists bool
	// Ingress are the addresses, as an Ingress's status has them; none while pending.
	Ingress []networkingv1.IngressLoadBalancerIngress
	// NodePorts are the node ports, by the name of the Service's port.
	NodePorts map[string]int32
	// Pending says, in one sentence, who holds this node's port; empty if nobody does, or
	// nobody said so.
	Pending string
	// Speaker tells whether this node is who writes what all nodes' components would write
	// the same: the first by name of those that serve. No node is as long as none serves.
	Speaker bool
}

// NewPublished makes it for the Service of this name in Namespace; ips are the node's own
// addresses. changed is called after each change and must be quick.
func NewPublished(c *Clients, service string, ips []netip.Addr, changed func()) (*Published, error) {
	p := &Published{changed: changed, node: c.Node, ips: ips, slices: map[string][]string{}}
	byName := fields.OneTermEqualSelector("metadata.name", service)
	own, err := NewWatch(c.Core, "services", Namespace, byName, &corev1.Service{}, nil, p.onService)
	if err != nil {
		return nil, err
	}
	about := fields.AndSelectors(fields.OneTermEqualSelector("involvedObject.kind", "Service"),
		fields.OneTermEqualSelector("involvedObject.name", service))
	events, err := NewWatch(c.Core, "events", Namespace, about, &corev1.Event{}, reduceEvent, p.onEvent)
	if err != nil {
		return nil, err
	}
	served, err := newLabelWatch(c.Discovery, "endpointslices", Namespace,
		labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service}), &discoveryv1.EndpointSlice{}, nil, p.onSlice)
	if err != nil {
		return nil, err
	}
	p.watches = Watches{own, events, served}
	return p, nil
}

// Run watches until stop is closed.
func (p *Published) Run(stop <-chan struct{}) { p.watches.Run(stop) }

// Synced waits until all was read once, or stop is closed: then it is false.
func (p *Published) Synced(stop <-chan struct{}) bool { return p.watches.Synced(stop) }

func (p *Published) onService(_, after any) {
	service, _ := after.(*corev1.Service)
	p.mu.Lock()
	p.service = service
	addressed := p.hasAddress(service)
	if addressed && !p.addressed {
		p.since = time.Now().Truncate(time.Second) // as Events have it
		p.taken = nil
	}
	p.addressed = addressed
	p.mu.Unlock()
	p.changed()
}

// hasAddress tells whether a Service has an address of this node.
func (p *Published) hasAddress(service *corev1.Service) bool {
	return service != nil && slices.ContainsFunc(service.Status.LoadBalancer.Ingress, func(i corev1.LoadBalancerIngress) bool {
		ip, err := netip.ParseAddr(i.IP)
		return err == nil && slices.Contains(p.ips, ip)
	})
}

func (p *Published) onSlice(before, after any) {
	p.mu.Lock()
	if slice, ok := before.(*discoveryv1.EndpointSlice); ok {
		delete(p.slices, slice.Name)
	}
	if slice, ok := after.(*discoveryv1.EndpointSlice); ok {
		var nodes []string
		for _, e := range slice.Endpoints {
			if e.NodeName != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				nodes = append(nodes, *e.NodeName)
			}
		}
		p.slices[slice.Name] = nodes
	}
	p.mu.Unlock()
	p.changed()
}

func (p *Published) onEvent(_, after any) {
	event, ok := after.(*corev1.Event)
	if !ok {
		return // the API forgets; what the Service's status says counts
	}
	switch event.Reason {
	case reasonTaken:
	case reasonAssigned:
		p.mu.Lock()
		// Also what a process before this one saw.
		if at := said(event); at.After(p.since) && slices.ContainsFunc(p.ips, func(ip netip.Addr) bool { return mentions(event.Message, ip) }) {
			p.since = at
		}
		p.mu.Unlock()
		p.changed()
		return
	default:
		return
	}
	p.mu.Lock()
	newest := p.taken == nil || !said(event).Before(said(p.taken))
	if newest {
		p.taken = event
	}
	p.mu.Unlock()
	if newest {
		p.changed()
	}
}

// mentions tells whether an address is among the words of a message.
func mentions(message string, ip netip.Addr) bool {
	return slices.ContainsFunc(strings.FieldsFunc(message, func(r rune) bool { return r == ' ' || r == ',' }), func(word string) bool {
		return word == ip.String()
	})
}

// State is the state now.
func (p *Published) State() PublishedState {
	p.mu.Lock()
	defer p.mu.Unlock()
	var s PublishedState
	first := ""
	for _, nodes := range p.slices {
		for _, node := range nodes {
			if first == "" || node < first {
				first = node
			}
		}
	}
	s.Speaker = first != "" && first == p.node
	if p.service == nil {
		return s
	}
	s.Exists, s.NodePorts = true, map[string]int32{}
	for _, port := range p.service.Spec.Ports {
		s.NodePorts[port.Name] = port.NodePort
	}
	for _, i := range p.service.Status.LoadBalancer.Ingress {
		address := networkingv1.IngressLoadBalancerIngress{IP: i.IP, Hostname: i.Hostname}
		for _, port := range p.service.Spec.Ports {
			address.Ports = append(address.Ports, networkingv1.IngressPortStatus{Port: port.Port, Protocol: port.Protocol})
		}
		s.Ingress = append(s.Ingress, address)
	}
	// An Event of an earlier Service of this name tells nothing of this one, and an Event
	// outlives what it tells of: a node that has its address, or had it since, has its port.
	balanced := p.service.Spec.Type == corev1.ServiceTypeLoadBalancer
	if balanced && !p.addressed && p.taken != nil && p.taken.InvolvedObject.UID == p.service.UID && said(p.taken).After(p.since) {
		if len(s.Ingress) == 0 || strings.Contains(p.taken.Message, " "+p.node+" (") {
			s.Pending = p.taken.Message
		}
	}
	return s
}

func reduceEvent(obj runtime.Object) runtime.Object {
	e, ok := obj.(*corev1.Event)
	if !ok {
		return obj
	}
	return &corev1.Event{ObjectMeta: Identity(&e.ObjectMeta), InvolvedObject: e.InvolvedObject, Reason: e.Reason,
		Message: e.Message, FirstTimestamp: e.FirstTimestamp, LastTimestamp: e.LastTimestamp,
		EventTime: e.EventTime, Series: e.Series}
}

// said is when an Event was last written.
func said(e *corev1.Event) time.Time {
	at := e.CreationTimestamp.Time
	for _, t := range []time.Time{e.FirstTimestamp.Time, e.LastTimestamp.Time, e.EventTime.Time} {
		if t.After(at) {
			at = t
		}
	}
	return at
}
