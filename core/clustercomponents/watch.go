package clustercomponents

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// watches are what a Cluster follows.
type watches struct {
	slices     discoverylisters.EndpointSliceLister
	components cache.Store
	end        func()
}

// watch starts to follow nodes, Services, NodeComponents, Components and k3m's own EndpointSlices,
// and returns when all were seen once.
func (c *Cluster) watch(ctx context.Context) (*watches, error) {
	ctx, cancel := context.WithCancel(ctx)
	cluster := informers.NewSharedInformerFactoryWithOptions(c.client, 0, informers.WithTransform(strip))
	own := informers.NewSharedInformerFactoryWithOptions(c.client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = discoveryv1.LabelManagedBy + "=" + fieldManager
	}))
	custom := dynamicinformer.NewDynamicSharedInformerFactory(c.dynamic, 0)
	w := &watches{
		slices:     own.Discovery().V1().EndpointSlices().Lister(),
		components: custom.ForResource(componentResource).Informer().GetStore(),
		end:        func() { cancel(); cluster.Shutdown(); own.Shutdown(); custom.Shutdown() },
	}
	var synced []cache.InformerSynced
	var errs []error
	follow := func(informer cache.SharedIndexInformer, seen func(object any, gone bool)) {
		handle, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { seen(o, false) },
			UpdateFunc: func(_, o any) { seen(o, false) },
			DeleteFunc: func(o any) {
				if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = last.Obj
				}
				seen(o, true)
			},
		})
		errs = append(errs, err)
		if err == nil {
			synced = append(synced, handle.HasSynced)
		}
	}
	follow(cluster.Core().V1().Nodes().Informer(), c.seenNode)
	follow(cluster.Core().V1().Services().Informer(), c.seenService)
	follow(custom.ForResource(nodeResource).Informer(), c.seenReport)
	follow(custom.ForResource(componentResource).Informer(), c.seenComponent)
	follow(own.Discovery().V1().EndpointSlices().Informer(), func(any, bool) {
		c.sliceWork.raise()
		c.summaryWork.raise() // an APIService may wait for it
	})
	if err := errors.Join(errs...); err != nil {
		w.end()
		return nil, err
	}
	cluster.Start(ctx.Done())
	own.Start(ctx.Done())
	custom.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		w.end()
		return nil, fmt.Errorf("watch the cluster: %w", context.Cause(ctx))
	}
	return w, nil
}

// served says whether k3m publishes an endpoint of a Service.
func (w *watches) served(namespace, service string) bool {
	found, err := w.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service}))
	return err == nil && slices.ContainsFunc(found, func(s *discoveryv1.EndpointSlice) bool { return len(s.Endpoints) > 0 })
}

func (c *Cluster) seenNode(o any, gone bool) {
	node, ok := o.(*corev1.Node)
	if !ok {
		return
	}
	if gone {
		c.setNode(node.Name, nil)
		return
	}
	facts := factsOf(node)
	c.setNode(node.Name, &facts)
}

func (c *Cluster) seenService(o any, gone bool) {
	service, ok := o.(*corev1.Service)
	if !ok {
		return
	}
	name := service.Namespace + "/" + service.Name
	if gone {
		c.setService(name, nil)
		return
	}
	facts := factsOfService(service)
	c.setService(name, &facts)
}

func (c *Cluster) seenReport(o any, gone bool) {
	object, ok := o.(*unstructured.Unstructured)
	if !ok {
		return
	}
	if gone {
		c.setReport(object.GetName(), nil)
		return
	}
	var r report
	if status, ok := object.Object["status"].(map[string]any); ok {
		// The API has checked it against the schema.
		if err := fromUnstructured(&unstructured.Unstructured{Object: status}, &r.status); err != nil {
			c.opts.Logger.Warn("a node says of its components what can't be read; ignored", "node", object.GetName(), "error", err)
			r = report{}
		}
	}
	c.setReport(object.GetName(), &r)
}

// seenComponent notes Components that somebody has removed.
func (c *Cluster) seenComponent(o any, gone bool) {
	if object, ok := o.(*unstructured.Unstructured); ok && gone {
		c.mu.Lock()
		c.removed[object.GetName()] = true
		c.mu.Unlock()
		c.summaryWork.raise()
	}
}

// strip leaves of an object what is looked at here, since all are kept in memory.
func strip(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.Node:
		return &corev1.Node{
			ObjectMeta: stripMeta(o.ObjectMeta), Spec: corev1.NodeSpec{PodCIDRs: o.Spec.PodCIDRs},
			Status: corev1.NodeStatus{Conditions: o.Status.Conditions, Addresses: o.Status.Addresses},
		}, nil
	case *corev1.Service:
		return &corev1.Service{
			ObjectMeta: stripMeta(o.ObjectMeta),
			Spec:       corev1.ServiceSpec{Selector: o.Spec.Selector, TrafficDistribution: o.Spec.TrafficDistribution},
		}, nil
	}
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	return o, nil
}

func stripMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion,
		Labels: m.Labels, CreationTimestamp: m.CreationTimestamp,
	}
}
