package kit

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// Clients are of the API's groups that an ingress needs.
type Clients struct {
	Core, Networking, Discovery, Events rest.Interface
	// Component is the component's ID, Node its node: Events name both.
	Component, Node string
}

// FieldManager is who the API says wrote a status.
func (c *Clients) FieldManager() string { return "k3m:component:" + c.Component }

// ErrRefused is for a component to end with when its credentials are refused.
var ErrRefused = errors.New("the API refuses the component's credentials; the next start reads them anew")

// NewClients reads a component's kubeconfig (Host.Kubeconfig). refused is called at each answer
// that says that the credentials are not good (any more), maybe by several goroutines: the
// component is to end, and is given new ones.
func NewClients(kubeconfig, component, node string, refused func()) (*Clients, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the component's kubeconfig: %w", err)
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(request)
			if err == nil && response.StatusCode == http.StatusUnauthorized {
				refused()
			}
			return response, err
		})
	})
	return ClientsFor(config, component, node)
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// ClientsFor makes the clients of a configuration, which it does not change.
func ClientsFor(config *rest.Config, component, node string) (*Clients, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "k3m-" + component
	// Ten thousand statuses may have to be written at once; the API's own fairness bounds
	// it too.
	config.QPS, config.Burst = 200, 400
	config.ContentType = runtime.ContentTypeJSON
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, networkingv1.AddToScheme, discoveryv1.AddToScheme, eventsv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register the API: %w", err)
		}
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	c := &Clients{Component: component, Node: node}
	for _, of := range []struct {
		client *rest.Interface
		path   string
		group  schema.GroupVersion
	}{
		{&c.Core, "/api", corev1.SchemeGroupVersion},
		{&c.Networking, "/apis", networkingv1.SchemeGroupVersion},
		{&c.Discovery, "/apis", discoveryv1.SchemeGroupVersion},
		{&c.Events, "/apis", eventsv1.SchemeGroupVersion},
	} {
		one := rest.CopyConfig(config)
		one.APIPath, one.GroupVersion, one.NegotiatedSerializer = of.path, &of.group, codecs
		client, err := rest.RESTClientFor(one)
		if err != nil {
			return nil, fmt.Errorf("make a client of the API: %w", err)
		}
		*of.client = client
	}
	return c, nil
}

// Watch is an informer that keeps of its objects what reduce leaves, and calls changed
// after each change, with what was and what is (nil for neither). changed must be quick.
type Watch struct {
	cache.SharedIndexInformer
}

// NewWatch makes a Watch of a resource; Run starts it. namespace may be empty for all.
func NewWatch(client rest.Interface, resource, namespace string, selector fields.Selector, example runtime.Object,
	reduce func(runtime.Object) runtime.Object, changed func(before, after any)) (*Watch, error) {
	return newWatch(cache.NewListWatchFromClient(client, resource, namespace, selector), resource, example, reduce, changed)
}

// newLabelWatch is NewWatch by labels.
func newLabelWatch(client rest.Interface, resource, namespace string, selector labels.Selector, example runtime.Object,
	reduce func(runtime.Object) runtime.Object, changed func(before, after any)) (*Watch, error) {
	lw := cache.NewFilteredListWatchFromClient(client, resource, namespace, func(o *metav1.ListOptions) {
		o.LabelSelector = selector.String()
	})
	return newWatch(lw, resource, example, reduce, changed)
}

func newWatch(lw cache.ListerWatcher, resource string, example runtime.Object,
	reduce func(runtime.Object) runtime.Object, changed func(before, after any)) (*Watch, error) {
	informer := cache.NewSharedIndexInformer(lw, example, 0, cache.Indexers{})
	err := informer.SetTransform(func(obj any) (any, error) {
		if o, ok := obj.(runtime.Object); ok && reduce != nil {
			return reduce(o), nil
		}
		return obj, nil // a tombstone
	})
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", resource, err)
	}
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { changed(nil, obj) },
		UpdateFunc: func(before, after any) {
			changed(before, after)
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			changed(obj, nil)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", resource, err)
	}
	return &Watch{informer}, nil
}

// Watches are run together.
type Watches []*Watch

// Run runs all until stop is closed, and returns when they have ended.
func (w Watches) Run(stop <-chan struct{}) {
	var running sync.WaitGroup
	for _, one := range w {
		running.Go(func() { one.Run(stop) })
	}
	running.Wait()
}

// Synced waits until all were read once, or stop is closed: then it is false.
func (w Watches) Synced(stop <-chan struct{}) bool {
	for _, one := range w {
		if !cache.WaitForCacheSync(stop, one.HasSynced) {
			return false
		}
	}
	return true
}

// Identity is what a kept object keeps of its metadata at least.
func Identity(from *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: from.Namespace, Name: from.Name, UID: from.UID, Generation: from.Generation,
		ResourceVersion: from.ResourceVersion, CreationTimestamp: from.CreationTimestamp}
}
