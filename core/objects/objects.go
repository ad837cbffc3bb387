// Package objects applies objects to the API and keeps them applied: by server-side apply, and
// by watches that tell when somebody has changed or removed one.
//
//	Client   applies, removes, watches; its user keeps the record of what is whose
//	Install  applies the definition of a kind and waits until the API serves it
package objects

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"

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

// ByOrder compares two kinds by the order in which their objects are applied.
func ByOrder(a, b string) int { return cmp.Compare(rank(a), rank(b)) }

// ReferenceTo names an object.
func ReferenceTo(o *unstructured.Unstructured) nodestatus.ObjectReference {
	return nodestatus.ObjectReference{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// Key is an object of a resource.
type Key struct {
	Resource        schema.GroupVersionResource
	Namespace, Name string
}

// Options are what a Client needs.
type Options struct {
	Discovery discovery.DiscoveryInterface
	Dynamic   dynamic.Interface
	Metadata  metadata.Interface
	// Manager owns the fields that are applied; nobody else's claim to them counts.
	Manager string
	// Selector finds the objects that the client applies by labels which all of them have.
	Selector string
	// Strict refuses fields that the API doesn't know.
	Strict bool
	// DefaultNamespace is that of objects which want one and name none; empty refuses them.
	DefaultNamespace string
	// Changed is called when an object is not as it was applied any more. It must return at once.
	Changed func()
}

// Client applies and removes objects, and watches those that it has applied: one that was
// changed or removed by somebody else is not applied any more. Its exported work is done by one
// goroutine; the watches have their own.
type Client struct {
	opts    Options
	ctx     context.Context // of the watches
	stop    context.CancelFunc
	running sync.WaitGroup
	mapper  *restmapper.DeferredDiscoveryRESTMapper
	watched map[schema.GroupVersionResource]context.CancelFunc
	held    map[Key]bool // what a watch is needed for

	mu      sync.Mutex
	applied map[Key]appliedObject
	// While an object is being applied, seenMeanwhile is what was seen of it last; nil without
	// an event.
	applying      Key
	seenMeanwhile *sight
}

// appliedObject is what an object was after it was applied.
type appliedObject struct {
	sight
	content *unstructured.Unstructured
}

// sight is what a watch shows of an object.
type sight struct {
	version    string // its resourceVersion; "" for one that is gone
	generation int64  // 0 for kinds that have none
	labels     map[string]string
	notes      map[string]string // annotations
}

func sightOf(m metav1.Object) sight {
	return sight{m.GetResourceVersion(), m.GetGeneration(), m.GetLabels(), m.GetAnnotations()}
}

// differs tells whether what was applied may have been changed: a new version of an object whose
// generation and metadata are the same has a new status, which nobody applies.
func (s sight) differs(from sight) bool {
	if s.version == from.version {
		return false
	}
	return s.version == "" || from.version == "" || s.generation == 0 || s.generation != from.generation ||
		!reflect.DeepEqual(s.labels, from.labels) || !reflect.DeepEqual(s.notes, from.notes)
}

// New makes no request. The watches end with ctx, or with End.
func New(ctx context.Context, o Options) *Client {
	ctx, stop := context.WithCancel(ctx)
	return &Client{
		opts: o, ctx: ctx, stop: stop,
		mapper:  restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(o.Discovery)),
		watched: map[schema.GroupVersionResource]context.CancelFunc{}, held: map[Key]bool{}, applied: map[Key]appliedObject{},
	}
}

// End ends the watches and waits for them.
func (c *Client) End() {
	c.stop()
	c.running.Wait()
}

// Apply applies an object unless it is as it was applied last.
func (c *Client) Apply(ctx context.Context, o *unstructured.Unstructured) error {
	client, key, err := c.find(ReferenceTo(o))
	if err == nil {
		c.held[key] = true
		err = c.watch(key.Resource)
	}
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	c.mu.Lock()
	before, ok := c.applied[key]
	c.applying, c.seenMeanwhile = key, nil
	c.mu.Unlock()
	if ok && reflect.DeepEqual(before.content.Object, o.Object) {
		return nil
	}
	text, err := o.MarshalJSON()
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	force := true // what was applied is ours, whoever changed it
	options := metav1.PatchOptions{FieldManager: c.opts.Manager, Force: &force}
	if c.opts.Strict {
		options.FieldValidation = metav1.FieldValidationStrict
	}
	done, err := client.Patch(ctx, o.GetName(), types.ApplyPatchType, text, options)
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	c.keep(key, appliedObject{sightOf(done), o})
	return nil
}

// keep takes note of what was applied. Where the last event meanwhile was not of the very object that
// came out of it, it may have been changed since, or the event is an older one: it is applied again.
func (c *Client) keep(key Key, now appliedObject) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seenMeanwhile != nil && c.seenMeanwhile.differs(now.sight) {
		delete(c.applied, key)
		c.opts.Changed()
		return
	}
	c.applied[key] = now
}

// Remove removes objects, those that were applied last first, and returns those that are still there,
// with why. One that mine says no to stays, and is nobody's from then on.
func (c *Client) Remove(ctx context.Context, refs []nodestatus.ObjectReference,
	mine func(context.Context, *unstructured.Unstructured) (bool, error)) (left []nodestatus.ObjectReference, err error) {
	refs = slices.Clone(refs)
	slices.SortStableFunc(refs, func(a, b nodestatus.ObjectReference) int { return ByOrder(b.Kind, a.Kind) })
	var errs []error
	for _, ref := range refs {
		if err := c.removeOne(ctx, ref, mine); err != nil {
			left = append(left, ref)
			errs = append(errs, fmt.Errorf("remove %s %s: %w", ref.Kind, ref.Name, err))
		}
	}
	return left, errors.Join(errs...)
}

func (c *Client) removeOne(ctx context.Context, ref nodestatus.ObjectReference, mine func(context.Context, *unstructured.Unstructured) (bool, error)) error {
	client, key, err := c.find(ref)
	if meta.IsNoMatchError(err) {
		c.forgetKind(ref)
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
		c.release(key)
		return nil
	}
	if err != nil {
		return err
	}
	if ok, err := mine(ctx, object); err != nil || !ok {
		if err == nil {
			c.release(key)
		}
		return err
	}
	background := metav1.DeletePropagationBackground
	err = client.Delete(ctx, ref.Name, metav1.DeleteOptions{
		Preconditions: metav1.NewUIDPreconditions(string(object.GetUID())), PropagationPolicy: &background,
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	c.release(key)
	return nil
}

// KeyOf is where the API has an object; a meta.NoKindMatchError says that it doesn't know its kind.
func (c *Client) KeyOf(ref nodestatus.ObjectReference) (Key, error) {
	_, key, err := c.find(ref)
	return key, err
}

// find returns the client of an object's resource. A kind that is not known may have come since
// the API was asked last.
func (c *Client) find(ref nodestatus.ObjectReference) (dynamic.ResourceInterface, Key, error) {
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		c.mapper.Reset()
		mapping, err = c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return nil, Key{}, err
	}
	key := Key{mapping.Resource, ref.Namespace, ref.Name}
	namespaced := mapping.Scope.Name() == meta.RESTScopeNameNamespace
	if namespaced && key.Namespace == "" {
		key.Namespace = c.opts.DefaultNamespace
	}
	switch {
	case namespaced && key.Namespace == "":
		return nil, key, errors.New("it has no namespace")
	case !namespaced && key.Namespace != "":
		return nil, key, fmt.Errorf("it can't have a namespace, and has %q", ref.Namespace)
	case namespaced:
		return c.opts.Dynamic.Resource(mapping.Resource).Namespace(key.Namespace), key, nil
	}
	return c.opts.Dynamic.Resource(mapping.Resource), key, nil
}

// watch follows the objects of a resource, by their metadata.
func (c *Client) watch(resource schema.GroupVersionResource) error {
	if c.watched[resource] != nil {
		return nil
	}
	informer := metadatainformer.NewFilteredMetadataInformer(c.opts.Metadata, resource, metav1.NamespaceAll, 0, nil, func(o *metav1.ListOptions) {
		o.LabelSelector = c.opts.Selector
	}).Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.seen(resource, o, false) },
		UpdateFunc: func(_, o any) { c.seen(resource, o, false) },
		DeleteFunc: func(o any) { c.seen(resource, o, true) },
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.ctx)
	c.watched[resource] = cancel
	c.running.Go(func() { informer.RunWithContext(ctx) })
	return nil
}

// release ends the watch of a resource with its last object: the kind may go now, and a watch of
// one that has gone would try again for ever.
func (c *Client) release(key Key) {
	delete(c.held, key)
	for other := range c.held {
		if other.Resource == key.Resource {
			return
		}
	}
	if cancel := c.watched[key.Resource]; cancel != nil {
		cancel()
		delete(c.watched, key.Resource)
	}
}

// forgetKind releases an object whose kind has gone.
func (c *Client) forgetKind(ref nodestatus.ObjectReference) {
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	for key := range c.held {
		if key.Name == ref.Name && key.Resource.GroupVersion() == kind.GroupVersion() {
			c.mu.Lock()
			delete(c.applied, key)
			c.mu.Unlock()
			c.release(key)
		}
	}
}

// seen notes that an object is not as it was applied. A change that left what was applied alone costs
// a request that changes nothing.
func (c *Client) seen(resource schema.GroupVersionResource, o any, gone bool) {
	if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = last.Obj
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return
	}
	key, now := Key{resource, m.GetNamespace(), m.GetName()}, sightOf(m)
	if gone {
		now.version = ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if key == c.applying {
		c.seenMeanwhile = &now
	}
	before, ok := c.applied[key]
	switch {
	case !ok:
	case now.differs(before.sight):
		delete(c.applied, key)
		c.opts.Changed()
	default:
		before.version = now.version
		c.applied[key] = before
	}
}
