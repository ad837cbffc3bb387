package nodeip

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// watches are the component's view of the cluster. Each keeps of its objects what a
// decision needs, and tells of a change only when that has changed: a node's heartbeat or
// a pod's new condition wakes nobody.
type watches struct {
	services, nodes, slices, pods, components cache.SharedIndexInformer

	changed chan struct{} // holds one token when something changed
	running sync.WaitGroup
}

// newWatches makes the watches; start starts them.
func newWatches(c *clients) (*watches, error) {
	w := &watches{changed: make(chan struct{}, 1)}
	alive := fields.AndSelectors(
		fields.OneTermNotEqualSelector("spec.nodeName", ""),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)))
	for _, of := range []struct {
		informer *cache.SharedIndexInformer
		client   rest.Interface
		resource string
		selector fields.Selector
		example  runtime.Object
		reduce   func(runtime.Object) runtime.Object
	}{
		{&w.services, c.core, "services", fields.Everything(), &corev1.Service{}, reduceService},
		{&w.nodes, c.core, "nodes", fields.Everything(), &corev1.Node{}, reduceNode},
		{&w.pods, c.core, "pods", alive, &corev1.Pod{}, reducePod},
		{&w.slices, c.discovery, "endpointslices", fields.Everything(), &discoveryv1.EndpointSlice{}, reduceSlice},
		{&w.components, c.k3m, "nodecomponents", fields.Everything(), &nodeComponents{}, reduceNodeComponents},
	} {
		informer := cache.NewSharedIndexInformer(
			cache.NewListWatchFromClient(of.client, of.resource, metav1.NamespaceAll, of.selector), of.example, 0, nil)
		err := informer.SetTransform(func(obj any) (any, error) {
			if o, ok := obj.(runtime.Object); ok {
				return of.reduce(o), nil
			}
			return obj, nil // a tombstone
		})
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", of.resource, err)
		}
		_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { w.notice(nil, obj) },
			UpdateFunc: w.notice,
			DeleteFunc: func(obj any) {
				if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
					obj = gone.Obj
				}
				w.notice(obj, nil)
			},
		})
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", of.resource, err)
		}
		*of.informer = informer
	}
	return w, nil
}

func (w *watches) all() map[string]cache.SharedIndexInformer {
	return map[string]cache.SharedIndexInformer{
		"services": w.services, "nodes": w.nodes, "pods": w.pods, "endpointslices": w.slices, "nodecomponents": w.components,
	}
}

// start runs the watches until ctx ends; stopped waits for their end.
func (w *watches) start(ctx context.Context) {
	for _, informer := range w.all() {
		w.running.Go(func() { informer.RunWithContext(ctx) })
	}
}

func (w *watches) stopped() { w.running.Wait() }

// synced waits until all are filled, or ctx ends.
func (w *watches) synced(ctx context.Context) bool {
	for _, informer := range w.all() {
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return false
		}
	}
	return true
}

// missing names the resources that were not read yet.
func (w *watches) missing() string {
	var names []string
	for name, informer := range w.all() {
		if !informer.HasSynced() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// notice says that something changed, if it did.
func (w *watches) notice(before, after any) {
	if idle(before) && idle(after) || same(before, after) {
		return
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// idle objects matter to no decision: pods without host ports, which most are.
func idle(obj any) bool {
	if obj == nil {
		return true
	}
	pod, is := obj.(*corev1.Pod)
	return is && len(pod.Spec.Containers) == 0
}

// same tells whether two versions differ in their version alone.
func same(before, after any) bool {
	if before == nil || after == nil {
		return false
	}
	a, aErr := meta.Accessor(before)
	b, bErr := meta.Accessor(after)
	if aErr != nil || bErr != nil {
		return false
	}
	if _, is := before.(*corev1.Service); is {
		return a.GetResourceVersion() == b.GetResourceVersion() // a write names the version
	}
	object, ok := after.(runtime.Object)
	if !ok {
		return false
	}
	renamed := object.DeepCopyObject() // the cache's own object must stay as it is
	if c, err := meta.Accessor(renamed); err == nil {
		c.SetResourceVersion(a.GetResourceVersion())
	}
	return reflect.DeepEqual(before, renamed)
}

// identity is what every kept object keeps.
func identity(from *metav1.ObjectMeta, labels ...string) metav1.ObjectMeta {
	kept := metav1.ObjectMeta{Namespace: from.Namespace, Name: from.Name, UID: from.UID,
		ResourceVersion: from.ResourceVersion, CreationTimestamp: from.CreationTimestamp}
	if len(labels) > 0 {
		kept.Labels = maps.Clone(from.Labels)
		maps.DeleteFunc(kept.Labels, func(key, _ string) bool { return !slices.Contains(labels, key) })
	}
	return kept
}

func reduceService(obj runtime.Object) runtime.Object {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return obj
	}
	kept := &corev1.Service{ObjectMeta: identity(&s.ObjectMeta, labelPool)}
	for _, m := range s.ManagedFields {
		if m.Manager == fieldManager && m.Subresource == "status" {
			kept.ManagedFields = append(kept.ManagedFields, m)
		}
	}
	kept.Spec = corev1.ServiceSpec{
		Type: s.Spec.Type, LoadBalancerClass: s.Spec.LoadBalancerClass, IPFamilies: s.Spec.IPFamilies,
		ExternalIPs: s.Spec.ExternalIPs, ExternalTrafficPolicy: s.Spec.ExternalTrafficPolicy,
		HealthCheckNodePort: s.Spec.HealthCheckNodePort,
	}
	for _, p := range s.Spec.Ports {
		kept.Spec.Ports = append(kept.Spec.Ports, corev1.ServicePort{Port: p.Port, Protocol: p.Protocol, NodePort: p.NodePort})
	}
	kept.Status.LoadBalancer = s.Status.LoadBalancer
	return kept
}

func reduceNode(obj runtime.Object) runtime.Object {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj
	}
	kept := &corev1.Node{ObjectMeta: identity(&n.ObjectMeta, labelPool, labelEnable, labelServer, corev1.LabelNodeExcludeBalancers)}
	kept.Status.Addresses = n.Status.Addresses
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			kept.Status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	return kept
}

// reducePod leaves a pod without host ports no container.
func reducePod(obj runtime.Object) runtime.Object {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return obj
	}
	kept := &corev1.Pod{ObjectMeta: identity(&p.ObjectMeta)}
	var ports []corev1.ContainerPort
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range containers {
			for _, cp := range c.Ports {
				if cp.HostPort > 0 {
					ports = append(ports, corev1.ContainerPort{HostPort: cp.HostPort, HostIP: cp.HostIP, Protocol: cp.Protocol})
				}
			}
		}
	}
	if len(ports) > 0 {
		kept.Spec = corev1.PodSpec{NodeName: p.Spec.NodeName, Containers: []corev1.Container{{Ports: ports}}}
	}
	return kept
}

// reduceSlice keeps the nodes of a slice that have a ready endpoint, one endpoint each.
func reduceSlice(obj runtime.Object) runtime.Object {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return obj
	}
	kept := &discoveryv1.EndpointSlice{ObjectMeta: identity(&s.ObjectMeta, discoveryv1.LabelServiceName), AddressType: s.AddressType}
	nodes := map[string]bool{}
	for _, e := range s.Endpoints {
		if e.NodeName != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
			nodes[*e.NodeName] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		kept.Endpoints = append(kept.Endpoints, discoveryv1.Endpoint{NodeName: &name})
	}
	return kept
}

func reduceNodeComponents(obj runtime.Object) runtime.Object {
	n, ok := obj.(*nodeComponents)
	if !ok {
		return obj
	}
	kept := &nodeComponents{ObjectMeta: identity(&n.ObjectMeta)}
	kept.Status.Ports = n.Status.Ports
	for _, c := range n.Status.Components {
		if c.ID == id {
			kept.Status.Components = append(kept.Status.Components, nodestatus.ComponentState{ID: c.ID, Serving: c.Serving})
		}
	}
	return kept
}
