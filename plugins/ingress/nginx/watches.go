package nginx

import (
	"reflect"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
)

// change says what a change may matter to.
type change uint8

const (
	// changedEndpoints asks for a new configuration.
	changedEndpoints change = 1 << iota
	// changedRules asks for an audit, too.
	changedRules
	// changedPublished is about the component's own Service.
	changedPublished
)

// watches are the component's view of the cluster: of each object what a configuration
// needs, and no word of a change that matters to none.
type watches struct {
	ingresses, classes, services, slices *kit.Watch

	secrets    *kit.Secrets
	configMaps *kit.Named
	all        kit.Watches

	changed chan struct{} // holds one token when dirty is not zero

	mu    sync.Mutex
	dirty change
	// used are the objects that the last configuration asked for. Before the first, each
	// matters.
	used *used
}

// used are names of objects.
type used struct{ services, secrets map[types.NamespacedName]bool }

// byService indexes EndpointSlices by the Service that they are of.
const byService = "service"

func newWatches(c *kit.Clients) (*watches, error) {
	w := &watches{changed: make(chan struct{}, 1)}
	everything := fields.Everything()
	var err error
	for _, of := range []struct {
		watch   **kit.Watch
		make    func() (*kit.Watch, error)
		indexed cache.Indexers
	}{
		{&w.ingresses, func() (*kit.Watch, error) {
			return kit.NewWatch(c.Networking, "ingresses", "", everything, &networkingv1.Ingress{}, reduceIngress, w.onIngress)
		}, nil},
		{&w.classes, func() (*kit.Watch, error) {
			return kit.NewWatch(c.Networking, "ingressclasses", "", everything, &networkingv1.IngressClass{}, nil, w.onClass)
		}, nil},
		{&w.services, func() (*kit.Watch, error) {
			return kit.NewWatch(c.Core, "services", "", everything, &corev1.Service{}, reduceService, w.onService)
		}, nil},
		{&w.slices, func() (*kit.Watch, error) {
			return kit.NewWatch(c.Discovery, "endpointslices", "", everything, &discoveryv1.EndpointSlice{}, reduceSlice, w.onSlice)
		}, cache.Indexers{byService: func(obj any) ([]string, error) {
			if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
				return []string{sliceOwner(s).String()}, nil
			}
			return nil, nil
		}}},
	} {
		if *of.watch, err = of.make(); err != nil {
			return nil, err
		}
		if of.indexed != nil {
			if err := (*of.watch).AddIndexers(of.indexed); err != nil {
				return nil, err
			}
		}
		w.all = append(w.all, *of.watch)
	}
	w.configMaps = kit.NewNamed(c.Core, "configmaps", &corev1.ConfigMap{}, nil, func(_, _ any) { w.mark(changedRules) })
	w.secrets, err = kit.NewSecrets(c, w.onSecret)
	return w, err
}

// run watches until stop is closed.
func (w *watches) run(stop <-chan struct{}) {
	var running sync.WaitGroup
	running.Go(func() { w.secrets.Run(stop) })
	w.all.Run(stop)
	w.configMaps.Close()
	running.Wait()
}

// synced waits until all was read once, or stop is closed: then it is false.
func (w *watches) synced(stop <-chan struct{}) bool {
	return w.all.Synced(stop) && w.secrets.Synced(stop)
}

// list is what a watch holds.
func list[T any](w *kit.Watch) []T {
	objects := w.GetStore().List()
	all := make([]T, 0, len(objects))
	for _, obj := range objects {
		if o, ok := obj.(T); ok {
			all = append(all, o)
		}
	}
	return all
}

// service is nil if there is none.
func (w *watches) service(namespace, name string) *corev1.Service {
	s, _ := kit.Stored(w.services, types.NamespacedName{Namespace: namespace, Name: name}).(*corev1.Service)
	return s
}

// endpointSlices are those of a Service.
func (w *watches) endpointSlices(namespace, service string) []*discoveryv1.EndpointSlice {
	objects, err := w.slices.GetIndexer().ByIndex(byService, types.NamespacedName{Namespace: namespace, Name: service}.String())
	if err != nil {
		return nil // there is no such index; there is
	}
	var all []*discoveryv1.EndpointSlice
	for _, obj := range objects {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
			all = append(all, s)
		}
	}
	return all
}

// configMap is nil if there is none, or nobody wants it.
func (w *watches) configMap(name types.NamespacedName) *corev1.ConfigMap {
	m, _ := w.configMaps.Object(name).(*corev1.ConfigMap)
	return m
}

// mark says that something changed.
func (w *watches) mark(c change) {
	w.mu.Lock()
	w.dirty |= c
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// take returns what changed since it was called last.
func (w *watches) take() change {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.dirty
	w.dirty = 0
	return c
}

// use says which objects matter from now on.
func (w *watches) use(u *used) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = u
}

func (w *watches) usesService(name types.NamespacedName) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.used == nil || w.used.services[name]
}

func (w *watches) usesSecret(name types.NamespacedName) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.used == nil || w.used.secrets[name]
}

func (w *watches) onIngress(before, after any) {
	a, _ := before.(*networkingv1.Ingress)
	b, _ := after.(*networkingv1.Ingress)
	if a != nil && b != nil && reflect.DeepEqual(a.Spec, b.Spec) && reflect.DeepEqual(a.Annotations, b.Annotations) {
		w.mark(changedPublished) // its status: somebody else's, or the component's own
		return
	}
	w.mark(changedRules)
}

func (w *watches) onClass(_, _ any) { w.mark(changedRules) }

func (w *watches) onService(before, after any) {
	a, _ := before.(*corev1.Service)
	b, _ := after.(*corev1.Service)
	switch {
	case a != nil && b != nil && reflect.DeepEqual(a.Spec, b.Spec) && reflect.DeepEqual(a.Annotations, b.Annotations):
	case a != nil && w.usesService(nameOf(a)), b != nil && w.usesService(nameOf(b)):
		w.mark(changedRules)
	}
}

func (w *watches) onSlice(before, after any) {
	a, _ := before.(*discoveryv1.EndpointSlice)
	b, _ := after.(*discoveryv1.EndpointSlice)
	switch {
	case a != nil && b != nil && reflect.DeepEqual(a.Endpoints, b.Endpoints) && reflect.DeepEqual(a.Ports, b.Ports) &&
		sliceOwner(a) == sliceOwner(b):
	case a != nil && w.usesService(sliceOwner(a)), b != nil && w.usesService(sliceOwner(b)):
		w.mark(changedEndpoints)
	}
}

func (w *watches) onSecret(name types.NamespacedName) {
	if w.usesSecret(name) {
		w.mark(changedRules)
	}
}

func nameOf(o interface {
	GetNamespace() string
	GetName() string
}) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func sliceOwner(s *discoveryv1.EndpointSlice) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}

// reduceIngress leaves out who wrote which field, and what only kubectl reads.
func reduceIngress(obj runtime.Object) runtime.Object {
	i, ok := obj.(*networkingv1.Ingress)
	if !ok {
		return obj
	}
	kept := &networkingv1.Ingress{ObjectMeta: kit.Identity(&i.ObjectMeta), Spec: i.Spec, Status: i.Status}
	kept.ManagedFields = kit.KeepStatusManagers(i.ManagedFields)
	for key, value := range i.Annotations {
		if key == corev1.LastAppliedConfigAnnotation {
			continue
		}
		if kept.Annotations == nil {
			kept.Annotations = map[string]string{}
		}
		kept.Annotations[key] = value
	}
	return kept
}

func reduceService(obj runtime.Object) runtime.Object {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return obj
	}
	kept := &corev1.Service{ObjectMeta: kit.Identity(&s.ObjectMeta)}
	kept.Spec = corev1.ServiceSpec{Type: s.Spec.Type, ClusterIP: s.Spec.ClusterIP, ClusterIPs: s.Spec.ClusterIPs,
		ExternalName: s.Spec.ExternalName}
	for _, p := range s.Spec.Ports {
		kept.Spec.Ports = append(kept.Spec.Ports, corev1.ServicePort{Name: p.Name, Port: p.Port, Protocol: p.Protocol,
			AppProtocol: p.AppProtocol, TargetPort: p.TargetPort})
	}
	for key, value := range s.Annotations {
		if strings.HasPrefix(key, annotationPrefix) {
			if kept.Annotations == nil {
				kept.Annotations = map[string]string{}
			}
			kept.Annotations[key] = value
		}
	}
	return kept
}

// reduceSlice keeps addresses and conditions.
func reduceSlice(obj runtime.Object) runtime.Object {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return obj
	}
	kept := &discoveryv1.EndpointSlice{ObjectMeta: kit.Identity(&s.ObjectMeta), AddressType: s.AddressType, Ports: s.Ports}
	kept.Labels = map[string]string{discoveryv1.LabelServiceName: s.Labels[discoveryv1.LabelServiceName]}
	for _, e := range s.Endpoints {
		kept.Endpoints = append(kept.Endpoints, discoveryv1.Endpoint{Addresses: slices.Clone(e.Addresses), Conditions: e.Conditions})
	}
	return kept
}
