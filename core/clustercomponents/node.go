package clustercomponents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"golang.org/x/time/rate"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

const (
	// nodeWriteInterval is the time between two writes of a node, once it has made
	// nodeWriteBurst of them: what changes meanwhile goes into the next.
	nodeWriteInterval = 500 * time.Millisecond
	nodeWriteBurst    = 6
	// retryPause is how long a write that failed waits for its next try, when nothing else
	// gives a reason for one.
	retryPause = 2 * time.Second
	// lastWrite is how long a last write may take when a run ends.
	lastWrite = time.Second
)

// NodeOptions are what a Node needs.
type NodeOptions struct {
	// Config is a client of the API as the node itself (system:node:<name>).
	Config *rest.Config
	// Name is the node's.
	Name   string
	Logger *slog.Logger
}

// Node writes what a node says of its components, on change.
//
//	NewNode ── Run (once)
//	           Update at any time, by any goroutine
type Node struct {
	name   string
	logger *slog.Logger
	client kubernetes.Interface
	object dynamic.NamespaceableResourceInterface
	all    dynamic.Interface

	wake chan struct{} // holds one token when there may be something to write

	mu      sync.Mutex
	status  nodestatus.NodeStatus
	uid     types.UID // of the Node object; empty when there is none
	present bool      // the API has the object as it was written last
}

// NewNode makes no request.
func NewNode(o NodeOptions) (*Node, error) {
	client, err := kubernetes.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("tell of the node's components: %w", err)
	}
	objects, err := dynamic.NewForConfig(o.Config)
	if err != nil {
		return nil, fmt.Errorf("tell of the node's components: %w", err)
	}
	return &Node{
		name: o.Name, logger: o.Logger, client: client, all: objects, object: objects.Resource(nodeResource),
		wake: make(chan struct{}, 1),
	}, nil
}

// Update changes what the node says of itself. change must not keep the pointer, nor change what
// slices hold: it replaces them.
func (n *Node) Update(change func(*nodestatus.NodeStatus)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.status
	change(&n.status)
	if !reflect.DeepEqual(before, n.status) {
		n.wakeUp()
	}
}

// Run writes until ctx ends, and then, within a second, what it has not written yet; it returns nil
// then. The object belongs to the Node object, with which it vanishes, and is written again when
// somebody removes it.
func (n *Node) Run(ctx context.Context) error {
	stop, err := n.watch(ctx)
	if err != nil {
		return fmt.Errorf("tell of the node's components: %w", err)
	}
	defer stop()
	var last writtenStatus
	n.keep(ctx, &last)
	status, uid, unwritten := n.unwritten(last)
	if !unwritten {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	if err := n.write(ctx, status, uid); err != nil {
		n.logger.Warn("the node's last word on its components is lost", "error", err)
	}
	return nil
}

// writtenStatus is what was written last, and for which Node object.
type writtenStatus struct {
	status nodestatus.NodeStatus
	uid    types.UID // empty when nothing was, or the write failed
}

// keep writes until ctx ends.
func (n *Node) keep(ctx context.Context, last *writtenStatus) {
	pace := rate.NewLimiter(rate.Every(nodeWriteInterval), nodeWriteBurst)
	var retry <-chan time.Time
	failing := false
	for {
		select {
		case <-n.wake:
		case <-retry:
		case <-ctx.Done():
			return
		}
		retry = nil
		if err := pace.Wait(ctx); err != nil {
			return
		}
		status, uid, unwritten := n.unwritten(*last)
		if !unwritten {
			continue
		}
		last.uid = ""
		err := n.write(ctx, status, uid)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				n.logger.Warn("the node can't tell of its components; trying again", "error", err)
			}
			failing = true
			retry = time.After(retryPause)
		default:
			failing, *last = false, writtenStatus{status, uid}
		}
	}
}

// unwritten is what the API does not have as it was written last, and for which Node object; false
// when it has all, or there is no Node object.
func (n *Node) unwritten(last writtenStatus) (nodestatus.NodeStatus, types.UID, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	present := n.present
	n.present = true // unless an event says otherwise from now on
	return n.status, n.uid, n.uid != "" && (!present || n.uid != last.uid || !reflect.DeepEqual(n.status, last.status))
}

func (n *Node) write(ctx context.Context, status nodestatus.NodeStatus, uid types.UID) error {
	object, err := toUnstructured(nodestatus.NodeComponents{Status: status})
	if err != nil {
		return err
	}
	object.SetAPIVersion(nodestatus.Group + "/" + nodestatus.Version)
	object.SetKind(nodestatus.NodeComponentsKind)
	object.SetName(n.name)
	object.SetLabels(map[string]string{managedBy: fieldManager})
	object.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.name, UID: uid}})
	_, err = n.object.Apply(ctx, n.name, object, apply)
	if apierrors.IsInvalid(err) {
		return fmt.Errorf("what the node says is refused: %w", err)
	}
	return err
}

// watch follows the Node object and the node's own NodeComponents. The returned function waits
// for the end of the watches, which ctx brings about.
func (n *Node) watch(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	only := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, n.name).String()
	}
	nodes := informers.NewSharedInformerFactoryWithOptions(n.client, 0, informers.WithTweakListOptions(only))
	own := dynamicinformer.NewFilteredDynamicSharedInformerFactory(n.all, 0, metav1.NamespaceAll, only)
	_, nodeErr := nodes.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { n.setNode(o.(*corev1.Node).UID) },
		UpdateFunc: func(_, o any) { n.setNode(o.(*corev1.Node).UID) },
		DeleteFunc: func(any) { n.setNode("") },
	})
	_, ownErr := own.ForResource(nodeResource).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		DeleteFunc: func(any) { n.lost() },
	})
	if err := errors.Join(nodeErr, ownErr); err != nil {
		cancel()
		return nil, err
	}
	nodes.Start(ctx.Done())
	own.Start(ctx.Done())
	return func() { cancel(); nodes.Shutdown(); own.Shutdown() }, nil
}

func (n *Node) setNode(uid types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.uid != uid {
		n.uid = uid
		n.wakeUp()
	}
}

func (n *Node) lost() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.present = false
	n.wakeUp()
}

// wakeUp is called with the lock held.
func (n *Node) wakeUp() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// toUnstructured goes by way of JSON, whose tags say which fields are left out.
func toUnstructured(v any) (*unstructured.Unstructured, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	return object, json.Unmarshal(data, &object.Object)
}

func fromUnstructured(u *unstructured.Unstructured, into any) error {
	data, err := json.Marshal(u.Object)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}
