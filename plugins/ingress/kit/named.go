package kit

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// maxNamed bounds the objects that are watched by name, one request each.
const maxNamed = 1000

// Named watches single objects of a resource by their names, as long as somebody wants
// them.
type Named struct {
	client   rest.Interface
	resource string
	example  runtime.Object
	reduce   func(runtime.Object) runtime.Object
	changed  func(before, after any)

	mu      sync.Mutex
	ended   bool
	watches map[types.NamespacedName]*namedWatch
	running sync.WaitGroup
}

type namedWatch struct {
	*Watch
	stop chan struct{}
}

// NewNamed makes it, with no names; see NewWatch.
func NewNamed(client rest.Interface, resource string, example runtime.Object, reduce func(runtime.Object) runtime.Object,
	changed func(before, after any)) *Named {
	return &Named{client: client, resource: resource, example: example, reduce: reduce, changed: changed,
		watches: map[types.NamespacedName]*namedWatch{}}
}

// Want says which objects are of interest from now on; those beyond the first thousand are
// taken for missing.
func (n *Named) Want(names map[types.NamespacedName]bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, w := range n.watches {
		if !names[name] {
			close(w.stop)
			delete(n.watches, name)
		}
	}
	for name := range names {
		if n.ended || n.watches[name] != nil || len(n.watches) >= maxNamed {
			continue
		}
		watch, err := NewWatch(n.client, n.resource, name.Namespace, fields.OneTermEqualSelector("metadata.name", name.Name),
			n.example, n.reduce, n.changed)
		if err != nil {
			return err
		}
		w := &namedWatch{watch, make(chan struct{})}
		n.watches[name] = w
		n.running.Go(func() { w.Run(w.stop) })
	}
	return nil
}

// Synced waits until all that is wanted was read once, for a time at most: what the API
// does not give is missing until it does.
func (n *Named) Synced(atMost time.Duration) {
	n.mu.Lock()
	var synced []cache.InformerSynced
	for _, w := range n.watches {
		if !w.HasSynced() {
			synced = append(synced, w.HasSynced)
		}
	}
	n.mu.Unlock()
	if len(synced) == 0 {
		return
	}
	stop := make(chan struct{})
	timer := time.AfterFunc(atMost, func() { close(stop) })
	defer timer.Stop()
	cache.WaitForCacheSync(stop, synced...)
}

// Object is one that is wanted, as it was reduced; nil if there is none.
func (n *Named) Object(name types.NamespacedName) any {
	n.mu.Lock()
	w := n.watches[name]
	n.mu.Unlock()
	if w == nil {
		return nil
	}
	return Stored(w.Watch, name)
}

// Close ends all watches, and waits for them.
func (n *Named) Close() {
	n.mu.Lock()
	n.ended = true
	for name, w := range n.watches {
		close(w.stop)
		delete(n.watches, name)
	}
	n.mu.Unlock()
	n.running.Wait()
}

// Stored is an object of a watch's cache; nil if there is none.
func Stored(watch *Watch, name types.NamespacedName) any {
	obj, found, err := watch.GetStore().GetByKey(cache.NewObjectName(name.Namespace, name.Name).String())
	if err != nil || !found {
		return nil
	}
	return obj
}
