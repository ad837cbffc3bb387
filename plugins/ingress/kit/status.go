package kit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// StatusWriter writes the addresses of a component's Service into the status of its
// Ingresses, and takes back those that it wrote into Ingresses which left its classes.
// It works on the newest state that it was told, in its own goroutine (Run).
type StatusWriter struct {
	clients *Clients
	log     hclog.Logger
	wake    chan struct{}

	mu   sync.Mutex
	want StatusInput

	// sent are the versions of Ingresses that a write was made of: the watch has not told
	// of it yet. It is Run's alone.
	sent map[types.UID]string
}

// StatusInput is the state that statuses are to follow. Objects are read, never changed;
// those of Left must have kept the managers of their status (KeepStatusManagers).
type StatusInput struct {
	Mine, Left []*networkingv1.Ingress
	Addresses  []networkingv1.IngressLoadBalancerIngress
}

// NewStatusWriter makes a StatusWriter.
func NewStatusWriter(c *Clients, log hclog.Logger) *StatusWriter {
	return &StatusWriter{clients: c, log: log, wake: make(chan struct{}, 1), sent: map[types.UID]string{}}
}

// Sync says what statuses are to follow from now on, and returns at once. The node that is
// not PublishedState.Speaker leaves it.
func (s *StatusWriter) Sync(in StatusInput) {
	s.mu.Lock()
	s.want = in
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends.
func (s *StatusWriter) Run(ctx context.Context) {
	var again <-chan time.Time // the API did not take a write, and nothing else need change
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-again:
		}
		s.mu.Lock()
		in := s.want
		s.mu.Unlock()
		again = nil
		if !s.write(ctx, in) {
			again = time.After(retryAfter)
		}
	}
}

// newer tells whether Sync has said something new.
func (s *StatusWriter) newer() bool { return len(s.wake) > 0 }

// write is false if the API did not take a write.
func (s *StatusWriter) write(ctx context.Context, in StatusInput) bool {
	good := true
	alive := make(map[types.UID]bool, len(s.sent))
	each := func(ingresses []*networkingv1.Ingress, addresses []networkingv1.IngressLoadBalancerIngress, only func(*networkingv1.Ingress) bool) {
		for _, i := range ingresses {
			alive[i.UID] = true
			if s.newer() || ctx.Err() != nil || s.sent[i.UID] == i.ResourceVersion ||
				sameAddresses(i.Status.LoadBalancer.Ingress, addresses) || only != nil && !only(i) {
				continue
			}
			err := s.patch(ctx, i, addresses)
			switch {
			case err == nil:
				s.sent[i.UID] = i.ResourceVersion
			case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
				// Gone, or changed: the watch says so.
			default:
				good = false
				s.log.Warn("write the addresses of an Ingress", "ingress", i.Namespace+"/"+i.Name, "err", err)
			}
		}
	}
	each(in.Mine, in.Addresses, nil)
	each(in.Left, nil, s.wrote)
	if s.newer() {
		return true // the round was cut short, and knows not all that are alive
	}
	for uid := range s.sent {
		if !alive[uid] {
			delete(s.sent, uid)
		}
	}
	return good
}

// patch names the version that it is made of, so that it undoes nobody's newer write.
func (s *StatusWriter) patch(ctx context.Context, i *networkingv1.Ingress, addresses []networkingv1.IngressLoadBalancerIngress) error {
	patch := map[string]any{
		"metadata": map[string]any{"uid": i.UID, "resourceVersion": i.ResourceVersion},
		"status":   map[string]any{"loadBalancer": map[string]any{"ingress": addresses}},
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode a status: %w", err)
	}
	return s.clients.Networking.Patch(types.MergePatchType).Namespace(i.Namespace).Resource("ingresses").Name(i.Name).
		SubResource("status").Param("fieldManager", s.clients.FieldManager()).
		Body(body).Do(ctx).Error()
}

// wrote tells whether the component wrote an Ingress's status.
func (s *StatusWriter) wrote(i *networkingv1.Ingress) bool {
	return slices.ContainsFunc(i.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == s.clients.FieldManager() && m.Subresource == "status"
	})
}

// NodeAddresses are a node's own, with the ports that a component binds on them: what a status has
// where no load balancer gave the component's Service addresses.
func NodeAddresses(ips []netip.Addr, e Exposure) []networkingv1.IngressLoadBalancerIngress {
	var all []networkingv1.IngressLoadBalancerIngress
	for _, ip := range ips {
		all = append(all, networkingv1.IngressLoadBalancerIngress{IP: ip.String(), Ports: []networkingv1.IngressPortStatus{
			{Port: int32(e.HTTP), Protocol: corev1.ProtocolTCP}, {Port: int32(e.HTTPS), Protocol: corev1.ProtocolTCP}}})
	}
	return all
}

// KeepStatusManagers keeps of an Ingress's managed fields who wrote its status, and not
// which fields: what StatusWriter needs of an Ingress in a cache.
func KeepStatusManagers(fields []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	var kept []metav1.ManagedFieldsEntry
	for _, m := range fields {
		if m.Subresource == "status" {
			kept = append(kept, metav1.ManagedFieldsEntry{Manager: m.Manager, Subresource: m.Subresource})
		}
	}
	return kept
}

func sameAddresses(a, b []networkingv1.IngressLoadBalancerIngress) bool {
	return slices.EqualFunc(a, b, func(x, y networkingv1.IngressLoadBalancerIngress) bool {
		return x.IP == y.IP && x.Hostname == y.Hostname && slices.EqualFunc(x.Ports, y.Ports,
			func(p, q networkingv1.IngressPortStatus) bool { return p.Port == q.Port && p.Protocol == q.Protocol })
	})
}
