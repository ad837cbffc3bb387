package nftables

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// componentNamespace is where NetworkPolicies see components.
const componentNamespace = metav1.NamespaceSystem

// objectKey is namespace and name.
type objectKey struct{ namespace, name string }

// direction is that of a connection, as seen from a pod.
type direction int

const (
	ingress direction = iota
	egress
)

func (d direction) String() string { return [...]string{"ingress", "egress"}[d] }

var directions = [...]direction{ingress, egress}

// pod is what counts of a Pod.
type pod struct {
	objectKey
	uid     string
	labels  labels.Set
	local   bool // on this node
	claims  []netip.Addr
	ports   []port
	leaving bool // is being deleted
	created time.Time

	addrs    []netip.Addr         // those of claims that are the pod's own: see engine.settle
	sets     map[*set][]string    // the elements that it puts into sets
	policies map[*policy]struct{} // those that select it; only of local pods
}

// port is a port with a name.
type port struct {
	name     string
	protocol string // "tcp", "udp", "sctp"
	number   uint16
}

// podOf reads a Pod; nil when it has no part in policies: pods of the host's network have
// no address of their own, finished ones have lost it.
func podOf(o *corev1.Pod, node string) *pod {
	if o.Spec.HostNetwork || finished(o) {
		return nil
	}
	p := &pod{
		objectKey: objectKey{o.Namespace, o.Name}, uid: string(o.UID), labels: o.Labels, local: o.Spec.NodeName == node,
		leaving: o.DeletionTimestamp != nil, created: o.CreationTimestamp.Time,
	}
	for _, ip := range o.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil && !slices.Contains(p.claims, addr.Unmap()) {
			p.claims = append(p.claims, addr.Unmap())
		}
	}
	sidecars := slices.DeleteFunc(slices.Clone(o.Spec.InitContainers), func(c corev1.Container) bool {
		return c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways
	})
	for _, c := range append(sidecars, o.Spec.Containers...) {
		for _, cp := range c.Ports {
			if cp.Name != "" && cp.ContainerPort > 0 && cp.ContainerPort < 1<<16 {
				p.ports = append(p.ports, port{cp.Name, protocolOf(cp.Protocol), uint16(cp.ContainerPort)})
			}
		}
	}
	return p
}

// finished says whether a pod runs no more: the phase, or, while it is being deleted, its
// containers. Its address may be another's by the time the object is gone.
func finished(o *corev1.Pod) bool {
	if o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
		return true
	}
	if o.DeletionTimestamp == nil || len(o.Status.ContainerStatuses) != len(o.Spec.Containers) {
		return false
	}
	// A sidecar, which is an init container, goes on after the containers.
	others := slices.Concat(o.Status.InitContainerStatuses, o.Status.EphemeralContainerStatuses)
	return !slices.ContainsFunc(o.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.State.Terminated == nil }) &&
		!slices.ContainsFunc(others, func(s corev1.ContainerStatus) bool { return s.State.Running != nil })
}

func protocolOf(p corev1.Protocol) string {
	if p == "" {
		return "tcp"
	}
	return strings.ToLower(string(p))
}

// same says whether nothing that counts differs.
func (p *pod) same(o *pod) bool {
	return p.uid == o.uid && p.local == o.local && p.leaving == o.leaving && slices.Equal(p.claims, o.claims) &&
		slices.Equal(p.ports, o.ports) && labels.Equals(p.labels, o.labels) && p.created.Equal(o.created)
}

// selector is a set of pods: those of one namespace, or of the namespaces that match.
type selector struct {
	namespace  string          // when namespaces is nil
	namespaces labels.Selector // of the namespace's labels
	pods       labels.Selector
	key        string // the same for the same selector
}

func newSelector(namespace string, namespaces, pods labels.Selector) selector {
	s := selector{namespace: namespace, namespaces: namespaces, pods: pods}
	s.key = "ns " + namespace
	if namespaces != nil {
		s.namespace, s.key = "", "all "+namespaces.String()
	}
	s.key += "\x00" + pods.String()
	return s
}

// matches says whether it takes in a pod with the labels in namespace, of which
// namespaceLabels are known if known.
func (s *selector) matches(namespace string, namespaceLabels labels.Set, known bool, podLabels labels.Set) bool {
	if s.namespaces == nil {
		return namespace == s.namespace && s.pods.Matches(podLabels)
	}
	return known && s.namespaces.Matches(namespaceLabels) && s.pods.Matches(podLabels)
}

// labelSelector reads one; a broken one, which the API does not let in, is otherwise.
func labelSelector(s *metav1.LabelSelector, otherwise labels.Selector) labels.Selector {
	read, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return otherwise
	}
	return read
}

// policy is a NetworkPolicy, compiled.
type policy struct {
	objectKey
	spec     networkingv1.NetworkPolicySpec
	pods     labels.Selector
	isolates [2]bool
	rules    [2]*rules // of the directions that it isolates
	selected map[*pod]struct{}
}

func policyOf(o *networkingv1.NetworkPolicy) *policy {
	p := &policy{
		objectKey: objectKey{o.Namespace, o.Name}, spec: o.Spec, selected: map[*pod]struct{}{},
		// Who can't be told apart is isolated.
		pods: labelSelector(&o.Spec.PodSelector, labels.Everything()),
	}
	for _, t := range o.Spec.PolicyTypes {
		p.isolates[ingress] = p.isolates[ingress] || t == networkingv1.PolicyTypeIngress
		p.isolates[egress] = p.isolates[egress] || t == networkingv1.PolicyTypeEgress
	}
	if len(o.Spec.PolicyTypes) == 0 { // the API fills them in, as here
		p.isolates = [2]bool{true, len(o.Spec.Egress) > 0}
	}
	return p
}

// component is a component of a node, as a pod of kube-system.
type component struct {
	id        string
	labels    labels.Set
	endpoints []endpoint
}

// endpoint is an address and a port of a component.
type endpoint struct {
	addr netip.Addr
	port
}

// componentsOf reads the components that policies can name: those with labels.
func componentsOf(status nodestatus.NodeStatus) []component {
	var all []component
	for _, state := range status.Components {
		if len(state.Labels) == 0 {
			continue
		}
		c := component{id: state.ID, labels: state.Labels}
		for _, e := range state.Endpoints {
			for _, text := range e.Addresses {
				addr, err := netip.ParseAddr(text)
				if err != nil {
					continue
				}
				for _, p := range e.Ports {
					protocol := protocolOf(corev1.Protocol(p.Protocol))
					if slices.Contains(protocols, protocol) && p.Port != 0 {
						c.endpoints = append(c.endpoints, endpoint{addr.Unmap(), port{p.Name, protocol, p.Port}})
					}
				}
			}
		}
		all = append(all, c)
	}
	return all
}
