package localpath

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const (
	// capacityNamespace is where the CSIStorageCapacity objects are; they have to be in one.
	capacityNamespace = "kube-system"
	// lookInterval is how often free space is looked at when no volume came or went: what
	// pods write into their volumes is no event. statfs takes some microseconds.
	lookInterval = time.Minute
	// retryInterval is when a publication that the API refused is tried again.
	retryInterval = 5 * time.Second
	// withdrawTimeout bounds the last request, while the process is being stopped.
	withdrawTimeout = 2 * time.Second
	// tolerance is the share of what is published by which free space must differ to be
	// published again, and so how wrong the scheduler may be; a claim that does not fit in
	// spite of it is sent back to the scheduler, with the exact figure.
	tolerance = 0.05
)

// capacities tells the scheduler how much space is free on this node: a
// CSIStorageCapacity object for each StorageClass of the provisioner. They are there while
// the component works on this node, so that the scheduler also avoids a node on which it
// does not.
type capacities struct {
	client  kubernetes.Interface
	log     hclog.Logger
	node    *corev1.Node
	bases   []*base
	classes cache.Store

	wake chan struct{} // holds one token when there is something to look at
	want chan struct{} // holds one token when the exact figure is to be published

	published map[string]*storagev1.CSIStorageCapacity // by class; of the run loop alone
}

func newCapacities(client kubernetes.Interface, log hclog.Logger, node *corev1.Node, bases []*base, classes cache.Store) *capacities {
	return &capacities{
		client: client, log: log, node: node, bases: bases, classes: classes,
		wake: make(chan struct{}, 1), want: make(chan struct{}, 1),
		published: map[string]*storagev1.CSIStorageCapacity{},
	}
}

// changed makes run look again, soon. It returns at once.
func (c *capacities) changed(exact bool) {
	channel := c.wake
	if exact {
		channel = c.want
	}
	select {
	case channel <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends, and then takes back what it has published. ready is called
// after the first publication.
func (c *capacities) run(ctx context.Context, ready func()) error {
	if err := c.adopt(ctx); err != nil {
		return err
	}
	defer c.withdraw(ctx)
	exact := false
	for {
		next := lookInterval
		if err := c.publish(ctx, exact); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			c.log.Warn("could not publish how much space is free; trying again", "error", err)
			next = retryInterval
		} else {
			exact = false
			ready()
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-c.want:
			exact = true
		case <-c.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// adopt finds the objects that an earlier process has left.
func (c *capacities) adopt(ctx context.Context) error {
	list, err := c.client.StorageV1().CSIStorageCapacities(capacityNamespace).List(ctx, metav1.ListOptions{
		LabelSelector: nodeLabel + "=" + c.node.Name})
	if err != nil {
		return fmt.Errorf("list what was published of free space: %w", err)
	}
	for i := range list.Items {
		c.published[list.Items[i].StorageClassName] = &list.Items[i]
	}
	return nil
}

// publish makes the objects say what is free now.
func (c *capacities) publish(ctx context.Context, exact bool) error {
	var free int64
	if len(c.bases) > 0 {
		_, most, err := mostFree(c.bases)
		if err != nil {
			return err
		}
		free = most
	}
	known := map[string]bool{}
	for _, object := range c.classes.List() {
		if class := object.(*storagev1.StorageClass); class.Provisioner == provisionerName {
			known[class.Name] = true
			if err := c.publishFor(ctx, class.Name, free, exact); err != nil {
				return err
			}
		}
	}
	for class := range c.published {
		if !known[class] {
			if err := c.remove(ctx, class); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *capacities) publishFor(ctx context.Context, class string, free int64, exact bool) error {
	api := c.client.StorageV1().CSIStorageCapacities(capacityNamespace)
	quantity := resource.NewQuantity(free, resource.BinarySI)
	old, there := c.published[class]
	if there {
		said := old.Capacity.Value()
		difference := max(free-said, said-free)
		if difference == 0 || (!exact && float64(difference) <= tolerance*float64(said)) {
			return nil
		}
		changed := old.DeepCopy()
		changed.Capacity = quantity
		updated, err := api.Update(ctx, changed, metav1.UpdateOptions{})
		if err == nil {
			c.published[class] = updated
			return nil
		}
		if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("publish the free space of class %s: %w", class, err)
		}
		// Someone has changed or removed it: make it anew.
		if err := c.remove(ctx, class); err != nil {
			return err
		}
	}
	made, err := api.Create(ctx, c.object(class, quantity), metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("publish the free space of class %s: %w", class, err)
	}
	c.published[class] = made
	return nil
}

// object is owned by the Node, and so goes with it.
func (c *capacities) object(class string, free *resource.Quantity) *storagev1.CSIStorageCapacity {
	sum := sha256.Sum256([]byte(c.node.Name + "/" + class)) // names of nodes hold no slash
	return &storagev1.CSIStorageCapacity{
		ObjectMeta: metav1.ObjectMeta{
			Name: "local-path-" + hex.EncodeToString(sum[:10]), Namespace: capacityNamespace,
			Labels:          map[string]string{nodeLabel: c.node.Name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: c.node.Name, UID: c.node.UID}},
		},
		StorageClassName: class,
		NodeTopology:     &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: c.node.Name}},
		Capacity:         free,
	}
}

func (c *capacities) remove(ctx context.Context, class string) error {
	err := c.client.StorageV1().CSIStorageCapacities(capacityNamespace).Delete(ctx, c.published[class].Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("take back the free space of class %s: %w", class, err)
	}
	delete(c.published, class)
	return nil
}

// withdraw takes all back. When the API does not answer any more, that is how it is: the
// next start adopts what is left.
func (c *capacities) withdraw(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTimeout)
	defer cancel()
	for class := range c.published {
		if err := c.remove(ctx, class); err != nil {
			c.log.Debug("could not take back how much space is free", "error", err)
			return
		}
	}
}
