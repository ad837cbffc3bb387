package clustercomponents

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// first and last are the kinds whose objects are applied before and after all others, and removed
// in the opposite order: what others live in, and what leads to others.
var (
	first = []string{"Namespace", "CustomResourceDefinition", "PriorityClass", "ServiceAccount", "Secret", "ConfigMap"}
	last  = []string{"APIService", "IngressClass"}
)

func rank(kind string) int {
	if i := slices.Index(first, kind); i >= 0 {
		return i - len(first)
	}
	return slices.Index(last, kind) + 1
}

// objectKey is an object of a resource.
type objectKey struct {
	resource        schema.GroupVersionResource
	namespace, name string
}

// objectClient applies and removes objects, and watches those that it has applied: one that was
// changed or removed by somebody else is not applied any more. Its exported work is done by one
// goroutine; the watches have their own.
type objectClient struct {
	ctx     context.Context // of the watches
	stop    context.CancelFunc
	running sync.WaitGroup

	cluster      *Cluster
	placeholders expander
	client       dynamic.Interface
	meta         metadata.Interface
	mapper       *restmapper.DeferredDiscoveryRESTMapper
	watched      map[schema.GroupVersionResource]bool

	mu      sync.Mutex
	applied map[objectKey]appliedObject
	// While an object is being applied, seenMeanwhile is its version at the last event, and
	// empty when that said that it was gone; nil without one.
	applying      objectKey
	seenMeanwhile *string
}

// appliedObject is what an object was after it was applied.
type appliedObject struct {
	version string // its resourceVersion
	content *unstructured.Unstructured
}

func newObjectClient(ctx context.Context, c *Cluster) *objectClient {
	ctx, stop := context.WithCancel(ctx)
	return &objectClient{
		ctx: ctx, stop: stop, cluster: c, placeholders: newExpander(c.opts), client: c.dynamic, meta: c.metadata,
		mapper:  restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.client.Discovery())),
		watched: map[schema.GroupVersionResource]bool{}, applied: map[objectKey]appliedObject{},
	}
}

func (c *objectClient) end() {
	c.stop()
	c.running.Wait()
}

// expand are a component's objects, those that it has made up too, as they are to be applied, in the
// order of it.
func (c *objectClient) expand(info sdk.Info, owned []json.RawMessage) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, raw := range slices.Concat(info.Objects, owned) {
		o, err := c.placeholders.object(raw)
		if err != nil {
			return nil, err
		}
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[managedBy], labels[idLabel] = fieldManager, info.ID()
		o.SetLabels(labels)
		out = append(out, o)
	}
	slices.SortStableFunc(out, func(a, b *unstructured.Unstructured) int { return cmp.Compare(rank(a.GetKind()), rank(b.GetKind())) })
	return out, nil
}

// apply applies an object unless it is as it was applied last.
func (c *objectClient) apply(ctx context.Context, o *unstructured.Unstructured) error {
	client, key, err := c.find(referenceTo(o))
	if err == nil && !c.watched[key.resource] {
		err = c.watch(key.resource)
		c.watched[key.resource] = err == nil
	}
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	c.mu.Lock()
	before, ok := c.applied[key]
	c.applying, c.seenMeanwhile = key, nil
	c.mu.Unlock()
	if ok && equalObjects(before.content, o) {
		return nil
	}
	done, err := client.Apply(ctx, o.GetName(), o, apply)
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	c.keep(key, appliedObject{done.GetResourceVersion(), o})
	return nil
}

// keep takes note of what was applied. Where the last event meanwhile was not of the very object that
// came out of it, it may have been changed since, or the event is an older one: it is applied again.
func (c *objectClient) keep(key objectKey, now appliedObject) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seenMeanwhile != nil && *c.seenMeanwhile != now.version {
		delete(c.applied, key)
		c.cluster.summaryWork.raise()
		return
	}
	c.applied[key] = now
}

// remove removes objects that a component owned, those that were applied last first, and returns
// those that are still there, with why. An object that has come to belong to another component,
// or to nobody, stays.
func (c *objectClient) remove(ctx context.Context, id string, refs []nodestatus.ObjectReference) (left []nodestatus.ObjectReference, err error) {
	refs = slices.Clone(refs)
	slices.SortStableFunc(refs, func(a, b nodestatus.ObjectReference) int { return cmp.Compare(rank(b.Kind), rank(a.Kind)) })
	var errs []error
	for _, ref := range refs {
		if err := c.removeOne(ctx, id, ref); err != nil {
			left = append(left, ref)
			errs = append(errs, fmt.Errorf("remove %s %s: %w", ref.Kind, ref.Name, err))
		}
	}
	return left, errors.Join(errs...)
}

func (c *objectClient) removeOne(ctx context.Context, id string, ref nodestatus.ObjectReference) error {
	client, key, err := c.find(ref)
	if meta.IsNoMatchError(err) {
		return nil // its kind is gone, and it with it
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.applied, key)
	c.mu.Unlock()
	object, err := client.Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if object.GetLabels()[idLabel] != id {
		return nil
	}
	if used, err := c.inUse(ctx, object); err != nil || used {
		return err // it stays, and is nobody's any more
	}
	background := metav1.DeletePropagationBackground
	err = client.Delete(ctx, ref.Name, metav1.DeleteOptions{
		Preconditions: metav1.NewUIDPreconditions(string(object.GetUID())), PropagationPolicy: &background,
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// inUse tells a definition of which there are objects: they are the user's, and would go with it.
func (c *objectClient) inUse(ctx context.Context, object *unstructured.Unstructured) (bool, error) {
	if kind := object.GroupVersionKind(); kind.Kind != "CustomResourceDefinition" || kind.Group != "apiextensions.k8s.io" {
		return false, nil
	}
	group, _, _ := unstructured.NestedString(object.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(object.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(object.Object, "spec", "versions")
	for _, v := range versions {
		version, ok := v.(map[string]any)
		if !ok || version["served"] != true {
			continue
		}
		name, _ := version["name"].(string)
		list, err := c.meta.Resource(schema.GroupVersionResource{Group: group, Version: name, Resource: plural}).List(ctx, metav1.ListOptions{Limit: 1})
		if apierrors.IsNotFound(err) {
			return false, nil // not served yet, or no more
		}
		return err == nil && len(list.Items) > 0, err
	}
	return false, nil
}

// find returns the client of an object's resource. A kind that is not known may have come since
// the API was asked last.
func (c *objectClient) find(ref nodestatus.ObjectReference) (dynamic.ResourceInterface, objectKey, error) {
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		c.mapper.Reset()
		mapping, err = c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return nil, objectKey{}, err
	}
	key := objectKey{mapping.Resource, ref.Namespace, ref.Name}
	switch namespaced := mapping.Scope.Name() == meta.RESTScopeNameNamespace; {
	case namespaced && ref.Namespace == "":
		return nil, key, errors.New("it has no namespace")
	case !namespaced && ref.Namespace != "":
		return nil, key, fmt.Errorf("it can't have a namespace, and has %q", ref.Namespace)
	case namespaced:
		return c.client.Resource(mapping.Resource).Namespace(ref.Namespace), key, nil
	}
	return c.client.Resource(mapping.Resource), key, nil
}

// watch follows the components' objects of a resource, by their metadata.
func (c *objectClient) watch(resource schema.GroupVersionResource) error {
	informer := metadatainformer.NewFilteredMetadataInformer(c.meta, resource, metav1.NamespaceAll, 0, nil, func(o *metav1.ListOptions) {
		o.LabelSelector = strings.Join([]string{managedBy + "=" + fieldManager, idLabel}, ",")
	}).Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.seen(resource, o, false) },
		UpdateFunc: func(_, o any) { c.seen(resource, o, false) },
		DeleteFunc: func(o any) { c.seen(resource, o, true) },
	})
	if err != nil {
		return err
	}
	c.running.Go(func() { informer.RunWithContext(c.ctx) })
	return nil
}

// seen notes that an object is not as it was applied. A change that left k3m's fields alone, such
// as one of a status, costs a request that changes nothing.
func (c *objectClient) seen(resource schema.GroupVersionResource, o any, gone bool) {
	if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = last.Obj
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return
	}
	key := objectKey{resource, m.GetNamespace(), m.GetName()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if key == c.applying {
		version := m.GetResourceVersion()
		if gone {
			version = ""
		}
		c.seenMeanwhile = &version
	}
	if before, ok := c.applied[key]; ok && (gone || before.version != m.GetResourceVersion()) {
		delete(c.applied, key)
		c.cluster.summaryWork.raise()
	}
}

// equalObjects compares two objects as they were to be applied.
func equalObjects(a, b *unstructured.Unstructured) bool { return reflect.DeepEqual(a.Object, b.Object) }
