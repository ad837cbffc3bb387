package clustercomponents

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

const (
	// sliceInterval is the time between two rounds over the slices after sliceBurst of them:
	// withdrawing an endpoint must not wait, a component that flaps may.
	sliceInterval = 200 * time.Millisecond
	sliceBurst    = 20
	// maxEndpoints is the most that the API takes in one slice.
	maxEndpoints = 1000
)

// snapshot is what the slices follow from.
type snapshot struct {
	order    []string // of selected, as it was given
	selected map[string]sdk.Info
	// owned are the objects that components have made up; one that has not said what they are is
	// not in it.
	owned    map[string][]json.RawMessage
	reports  map[string]report
	nodes    map[string]nodeFacts
	services map[string]serviceFacts
	// withdrawn nodes serve nothing, whatever they have said.
	withdrawn map[string]bool
}

// snapshot is ok only after SetSelected: before it, nobody knows what is to go.
func (c *Cluster) snapshot() (s *snapshot, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s = &snapshot{
		selected: map[string]sdk.Info{}, owned: c.owned, reports: maps.Clone(c.reports),
		nodes: maps.Clone(c.nodes), services: maps.Clone(c.services), withdrawn: maps.Clone(c.withdrawn),
	}
	for _, info := range c.selected {
		s.selected[info.ID()] = info
		s.order = append(s.order, info.ID())
	}
	return s, c.isSelected
}

// keepSlices keeps the EndpointSlices until ctx ends, and then looks a last time at what is to go.
func (c *Cluster) keepSlices(ctx context.Context, w *watches) error {
	err := c.loop(ctx, c.sliceWork, sliceInterval, sliceBurst, "the endpoints of components can't be published",
		func(ctx context.Context) error { return c.syncSlices(ctx, w) })
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	if err := c.syncSlices(last, w); err != nil {
		c.opts.Logger.Warn("the endpoints of components that have stopped are not withdrawn", "error", err)
	}
	return err
}

func (c *Cluster) syncSlices(ctx context.Context, w *watches) error {
	s, ok := c.snapshot()
	if !ok {
		return nil
	}
	wanted := s.slices()
	present, err := w.slices.List(labels.Everything())
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range present {
		want, ok := wanted[p.Namespace+"/"+p.Name]
		switch {
		case !ok && p.Labels[discoveryv1.LabelManagedBy] == fieldManager:
			err := c.client.DiscoveryV1().EndpointSlices(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				errs = append(errs, err)
			}
		case ok && sameSlice(p, want):
			delete(wanted, p.Namespace+"/"+p.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if err := c.writeSlice(ctx, wanted[name]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sameSlice compares what k3m says in a slice.
func sameSlice(have, want *discoveryv1.EndpointSlice) bool {
	return have.AddressType == want.AddressType && reflect.DeepEqual(have.Labels, want.Labels) &&
		equality.Semantic.DeepEqual(have.OwnerReferences, want.OwnerReferences) &&
		equality.Semantic.DeepEqual(have.Ports, want.Ports) && equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints)
}

// writeSlice creates or replaces a slice. It has no other writer.
func (c *Cluster) writeSlice(ctx context.Context, s *discoveryv1.EndpointSlice) error {
	client := c.client.DiscoveryV1().EndpointSlices(s.Namespace)
	_, err := client.Create(ctx, s, metav1.CreateOptions{FieldManager: fieldManager})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	_, err = client.Update(ctx, s, metav1.UpdateOptions{FieldManager: fieldManager})
	return err
}

// sliceKey is what the endpoints of one slice have in common.
type sliceKey struct {
	service string
	ipv4    bool
	ports   string
}

// slices are the EndpointSlices that there should be, by "<namespace>/<name>".
func (s *snapshot) slices() map[string]*discoveryv1.EndpointSlice {
	endpoints, ports := map[sliceKey][]discoveryv1.Endpoint{}, map[string][]discoveryv1.EndpointPort{}
	seen := map[socket]bool{}
	for _, node := range slices.Sorted(maps.Keys(s.reports)) {
		facts, there := s.nodes[node]
		if !there || facts.lost || s.withdrawn[node] {
			continue
		}
		for _, component := range s.reports[node].status.Components {
			info, selected := s.selected[component.ID]
			if !selected || !component.Serving {
				continue
			}
			for _, e := range component.Endpoints {
				addresses, ok := s.addresses(node, e)
				if !ok || !mayServe(facts, info, e.Service) {
					continue
				}
				service, exists := s.services[e.Service]
				if !exists || service.selector {
					continue
				}
				if addresses = unseen(seen, e, addresses); len(addresses) == 0 {
					continue
				}
				key := sliceKey{e.Service, addresses[0].Is4(), portsKey(e.Ports)}
				ports[key.ports] = endpointPorts(e.Ports)
				endpoints[key] = append(endpoints[key], endpointsOf(addresses, node, service)...)
			}
		}
	}
	out := map[string]*discoveryv1.EndpointSlice{}
	for key, all := range endpoints {
		n := 0
		for some := range slices.Chunk(all, maxEndpoints) {
			slice := s.slice(key, n, some, ports[key.ports])
			out[slice.Namespace+"/"+slice.Name] = slice
			n++
		}
	}
	return out
}

// socket is where a port of a Service is served.
type socket struct {
	service, port, protocol string
	address                 netip.AddrPort
}

// unseen are the addresses of an endpoint that no endpoint had before for one of its ports: one that
// a node tells of many times is one.
func unseen(seen map[socket]bool, e nodestatus.Endpoint, addresses []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addresses {
		var sockets []socket
		for _, p := range e.Ports {
			sockets = append(sockets, socket{e.Service, p.Name, p.Protocol, netip.AddrPortFrom(a, p.Port)})
		}
		if slices.ContainsFunc(sockets, func(s socket) bool { return seen[s] }) {
			continue
		}
		for _, s := range sockets {
			seen[s] = true
		}
		out = append(out, a)
	}
	return out
}

func endpointsOf(addresses []netip.Addr, node string, service serviceFacts) []discoveryv1.Endpoint {
	var out []discoveryv1.Endpoint
	for _, a := range addresses { // kube-proxy looks at an endpoint's first address alone
		e := discoveryv1.Endpoint{
			Addresses: []string{a.String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
		}
		if service.sameNode {
			// kube-proxy keeps to them when all endpoints have one and one is for its own
			// node; where none is, it takes all.
			e.Hints = &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: node}}}
		}
		out = append(out, e)
	}
	return out
}

func (s *snapshot) slice(key sliceKey, n int, endpoints []discoveryv1.Endpoint, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	namespace, service, _ := strings.Cut(key.service, "/")
	family := discoveryv1.AddressTypeIPv6
	if key.ipv4 {
		family = discoveryv1.AddressTypeIPv4
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(key.ports)) // never fails
	name := fmt.Sprintf("%s-k3m-%s-%08x", service, strings.ToLower(string(family)), hash.Sum32())
	if n > 0 {
		name = fmt.Sprintf("%s-%d", name, n)
	}
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: namespace,
			// Another manager's name: the EndpointSlice controller leaves it alone.
			Labels: map[string]string{discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: fieldManager},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Service", Name: service, UID: types.UID(s.services[key.service].uid)}},
		},
		AddressType: family, Endpoints: endpoints, Ports: ports,
	}
}

func sortedPorts(ports []nodestatus.Port) []nodestatus.Port {
	return slices.SortedFunc(slices.Values(ports), func(a, b nodestatus.Port) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
}

func portsKey(ports []nodestatus.Port) string {
	var b strings.Builder
	for _, p := range sortedPorts(ports) {
		fmt.Fprintf(&b, "%s %s %d %s\n", p.Name, p.Protocol, p.Port, p.AppProtocol)
	}
	return b.String()
}

func endpointPorts(ports []nodestatus.Port) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for _, p := range sortedPorts(ports) {
		port := discoveryv1.EndpointPort{Name: ptr.To(p.Name), Protocol: ptr.To(corev1.Protocol(p.Protocol)), Port: ptr.To(int32(p.Port))}
		if p.AppProtocol != "" {
			port.AppProtocol = ptr.To(p.AppProtocol)
		}
		out = append(out, port)
	}
	return out
}
