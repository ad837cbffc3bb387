package traefik

import (
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
)

const (
	annotationPrefix = "traefik.ingress.kubernetes.io/"
	classAnnotation  = "kubernetes.io/ingress.class"
)

// cluster is what the component keeps of the cluster in memory: of each object what it reads.
type cluster struct {
	ingresses, classes, services *kit.Watch
	slices                       *kit.Watch
	secrets                      *kit.Secrets

	mu sync.Mutex
	// byService are the EndpointSlices of each Service, by their names.
	byService map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice
}

// newCluster makes the watches. changed is called after each change and must be quick.
func newCluster(c *kit.Clients, changed func()) (*cluster, error) {
	all := &cluster{byService: map[types.NamespacedName]map[string]*discoveryv1.EndpointSlice{}}
	for _, w := range []struct {
		into     **kit.Watch
		resource string
		example  runtime.Object
		reduce   func(runtime.Object) runtime.Object
	}{
		{&all.ingresses, "ingresses", &networkingv1.Ingress{}, reduceIngress},
		{&all.classes, "ingressclasses", &networkingv1.IngressClass{}, reduceClass},
		{&all.services, "services", &corev1.Service{}, reduceService},
		{&all.slices, "endpointslices", &discoveryv1.EndpointSlice{}, reduceSlice},
	} {
		client := c.Networking
		tell := func(_, _ any) { changed() }
		switch w.resource {
		case "services":
			client = c.Core
		case "endpointslices":
			client = c.Discovery
			tell = func(before, after any) {
				all.index(before, after)
				changed()
			}
		}
		var err error
		if *w.into, err = kit.NewWatch(client, w.resource, "", fields.Everything(), w.example, w.reduce, tell); err != nil {
			return nil, err
		}
	}
	var err error
	all.secrets, err = kit.NewSecrets(c, func(types.NamespacedName) { changed() })
	return all, err
}

func (c *cluster) watches() kit.Watches {
	return kit.Watches{c.ingresses, c.classes, c.services, c.slices}
}

// run watches until stop is closed.
func (c *cluster) run(stop <-chan struct{}) {
	var running sync.WaitGroup
	running.Go(func() { c.watches().Run(stop) })
	running.Go(func() { c.secrets.Run(stop) })
	running.Wait()
}

// synced waits until all was read once; it is false if stop is closed before.
func (c *cluster) synced(stop <-chan struct{}) bool {
	return c.watches().Synced(stop) && c.secrets.Synced(stop)
}

// index keeps byService.
func (c *cluster) index(before, after any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, _ := before.(*discoveryv1.EndpointSlice)
	now, _ := after.(*discoveryv1.EndpointSlice)
	if old != nil {
		key := serviceOf(old)
		if delete(c.byService[key], old.Name); len(c.byService[key]) == 0 {
			delete(c.byService, key)
		}
	}
	if now != nil {
		key := serviceOf(now)
		if c.byService[key] == nil {
			c.byService[key] = map[string]*discoveryv1.EndpointSlice{}
		}
		c.byService[key][now.Name] = now
	}
}

func serviceOf(s *discoveryv1.EndpointSlice) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}

func (c *cluster) endpoints(namespace, name string) []*discoveryv1.EndpointSlice {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*discoveryv1.EndpointSlice
	for _, s := range c.byService[types.NamespacedName{Namespace: namespace, Name: name}] {
		all = append(all, s)
	}
	return all
}

func (c *cluster) service(namespace, name string) *corev1.Service {
	s, _ := kit.Stored(c.services, types.NamespacedName{Namespace: namespace, Name: name}).(*corev1.Service)
	return s
}

// mine tells whether an Ingress is of one of the component's classes: that of its own name, and all that name its
// controller.
func (c *cluster) mine(i *networkingv1.Ingress) bool {
	name := i.Annotations[classAnnotation]
	if i.Spec.IngressClassName != nil {
		name = *i.Spec.IngressClassName
	}
	if name == "" {
		return false
	}
	class, there := kit.Stored(c.classes, types.NamespacedName{Name: name}).(*networkingv1.IngressClass)
	if !there {
		return name == className // it is about to be made
	}
	return class.Spec.Controller == controllerName
}

// split are the Ingresses that are the component's, and those that are not.
func (c *cluster) split() (mine, others []*networkingv1.Ingress) {
	for _, obj := range c.ingresses.GetStore().List() {
		i, ok := obj.(*networkingv1.Ingress)
		switch {
		case !ok:
		case c.mine(i):
			mine = append(mine, i)
		default:
			others = append(others, i)
		}
	}
	return mine, others
}

func reduceIngress(obj runtime.Object) runtime.Object {
	i, ok := obj.(*networkingv1.Ingress)
	if !ok {
		return obj
	}
	kept := &networkingv1.Ingress{ObjectMeta: kit.Identity(&i.ObjectMeta), Spec: i.Spec, Status: i.Status}
	kept.Annotations = keepAnnotations(i.Annotations)
	kept.ManagedFields = kit.KeepStatusManagers(i.ManagedFields)
	return kept
}

func reduceClass(obj runtime.Object) runtime.Object {
	c, ok := obj.(*networkingv1.IngressClass)
	if !ok {
		return obj
	}
	return &networkingv1.IngressClass{ObjectMeta: kit.Identity(&c.ObjectMeta), Spec: networkingv1.IngressClassSpec{Controller: c.Spec.Controller}}
}

func reduceService(obj runtime.Object) runtime.Object {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return obj
	}
	kept := &corev1.Service{ObjectMeta: kit.Identity(&s.ObjectMeta), Spec: corev1.ServiceSpec{
		Type: s.Spec.Type, Ports: s.Spec.Ports, ClusterIP: s.Spec.ClusterIP, ExternalName: s.Spec.ExternalName, IPFamilies: s.Spec.IPFamilies}}
	kept.Annotations = keepAnnotations(s.Annotations)
	return kept
}

func reduceSlice(obj runtime.Object) runtime.Object {
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return obj
	}
	kept := &discoveryv1.EndpointSlice{ObjectMeta: kit.Identity(&s.ObjectMeta), AddressType: s.AddressType, Ports: s.Ports}
	kept.Labels = map[string]string{discoveryv1.LabelServiceName: s.Labels[discoveryv1.LabelServiceName]}
	for _, e := range s.Endpoints {
		kept.Endpoints = append(kept.Endpoints, discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions})
	}
	return kept
}

// keepAnnotations keeps those that the component reads.
func keepAnnotations(all map[string]string) map[string]string {
	var kept map[string]string
	for key, value := range all {
		if key == classAnnotation || strings.HasPrefix(key, annotationPrefix) {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[key] = value
		}
	}
	return kept
}
