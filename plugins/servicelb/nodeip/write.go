package nodeip

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// writers is how many statuses are written at once.
const writers = 8

// write brings the statuses of Services to what was decided, where they differ. First
// all take back what goes to others, so that no two have an address and port at once.
// Services that changed meanwhile are left alone: the change is about to be noticed.
func (c *controller) write(ctx context.Context, verdicts []verdict) error {
	var losing, gaining []*verdict
	for i := range verdicts {
		v := &verdicts[i]
		switch {
		case slices.EqualFunc(v.service.current, v.ingress, ingress.equal):
		case slices.ContainsFunc(v.service.current, func(i ingress) bool { return !has(v.ingress, i.addr) }):
			losing = append(losing, v)
		default:
			gaining = append(gaining, v)
		}
	}
	var kept sync.Mutex
	stuck := map[netip.Addr]bool{} // addresses that could not be taken back
	err := each(losing, func(v *verdict) error {
		rest := slices.DeleteFunc(slices.Clone(v.ingress), func(i ingress) bool { return !has(v.service.current, i.addr) })
		err := c.patch(ctx, v.service, rest)
		kept.Lock()
		defer kept.Unlock()
		if err != nil {
			for _, i := range v.service.current {
				stuck[i.addr] = true
			}
		} else if len(rest) < len(v.ingress) {
			gaining = append(gaining, v)
		}
		return err
	})
	gaining = slices.DeleteFunc(gaining, func(v *verdict) bool {
		return slices.ContainsFunc(v.ingress, func(i ingress) bool { return stuck[i.addr] })
	})
	return errors.Join(err, each(gaining, func(v *verdict) error { return c.patch(ctx, v.service, v.ingress) }))
}

// each calls f for all, some at once, and gives the first error when all are done.
func each(verdicts []*verdict, f func(*verdict) error) error {
	var group errgroup.Group
	group.SetLimit(writers)
	for _, v := range verdicts {
		group.Go(func() error { return f(v) })
	}
	return group.Wait()
}

func has(ingresses []ingress, addr netip.Addr) bool {
	return slices.ContainsFunc(ingresses, func(i ingress) bool { return i.addr == addr })
}

// patch writes a Service's status, provided that the Service is still the one that was
// decided on.
func (c *controller) patch(ctx context.Context, svc *service, ingresses []ingress) error {
	status := map[string]any{"loadBalancer": nil}
	if len(ingresses) > 0 {
		status["loadBalancer"] = corev1.LoadBalancerStatus{Ingress: statusOf(ingresses)}
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": svc.uid, "resourceVersion": svc.version},
		"status":   status,
	})
	if err != nil {
		return fmt.Errorf("write the status of Service %s: %w", svc.key, err)
	}
	var written corev1.Service
	err = c.clients.core.Patch(types.MergePatchType).Namespace(svc.key.Namespace).Resource("services").Name(svc.key.Name).
		SubResource("status").VersionedParams(&metav1.PatchOptions{FieldManager: fieldManager}, metav1.ParameterCodec).
		Body(body).Do(ctx).Into(&written)
	switch {
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("write the status of Service %s: %w", svc.key, err)
	}
	c.metrics.writes.Add(1)
	svc.version = written.ResourceVersion
	c.log.Info("assigned", "service", svc.key.String(), "addresses", addresses(ingresses))
	return nil
}

// statusOf is how a Service's status says it. Ports are named, so that the next process
// knows what an address was given for.
func statusOf(ingresses []ingress) []corev1.LoadBalancerIngress {
	vip := corev1.LoadBalancerIPModeVIP
	var all []corev1.LoadBalancerIngress
	for _, i := range ingresses {
		entry := corev1.LoadBalancerIngress{IP: i.addr.String(), IPMode: &vip}
		for _, p := range i.ports {
			entry.Ports = append(entry.Ports, corev1.PortStatus{Port: int32(p.number), Protocol: corev1.Protocol(p.protocol)})
		}
		all = append(all, entry)
	}
	return all
}
