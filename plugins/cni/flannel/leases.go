package flannel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/flannel-io/flannel/pkg/subnet"
	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// patchTimeout bounds the one write to the API, the node's annotations.
const patchTimeout = 10 * time.Second

// leases is flannel's subnet manager on Kubernetes: a node's lease is its podCIDRs, and
// what other nodes need to know to reach it is in its annotations. It speaks the
// annotations of flannel's own kube subnet manager, and differs in that it waits for
// events where that one polls (which costs a second at each start), in that it keeps of
// a Node only what it needs, and in that it sees every change of a dual-stack node.
//
// run must be running for the other methods to get anywhere.
type leases struct {
	plan       *plan
	config     *subnet.Config // set before a backend is registered
	log        hclog.Logger
	client     rest.Interface
	store      cache.Store
	controller cache.Controller

	mu     sync.Mutex
	own    *corev1.Node           // this node, slimmed; nil before it is seen
	mine   subnets                // this node's pod CIDRs, the last that it had
	claims map[string]*claim      // of the other nodes, by node name; see claims.go
	known  map[string]lease.Lease // those of the claims that were granted
	queue  []lease.Event          // not yet handed to the backend
	moved  chan struct{}          // closed and replaced at every change of the above

	listed  bool          // all Nodes of the start have been seen
	settled chan struct{} // closed once the claims of the start are settled

	annotated map[string]string // what AcquireLease wrote to this node; nil before
}

var _ subnet.Manager = (*leases)(nil)

// newLeases makes no request; run does.
func newLeases(p *plan, client rest.Interface, log hclog.Logger) *leases {
	m := &leases{
		plan: p, client: client, log: log,
		claims:  map[string]*claim{},
		known:   map[string]lease.Lease{},
		moved:   make(chan struct{}),
		settled: make(chan struct{}),
	}
	m.store, m.controller = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(client, "nodes", "", fields.Everything()),
		ObjectType:    &corev1.Node{},
		Transform:     slimNode,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { m.nodeSeen(obj) },
			UpdateFunc: func(_, obj any) { m.nodeSeen(obj) },
			DeleteFunc: func(obj any) { m.nodeGone(obj) },
		},
	})
	return m
}

// run watches the Node objects until ctx ends.
func (m *leases) run(ctx context.Context) {
	var waits sync.WaitGroup
	defer waits.Wait()
	waits.Go(func() {
		select {
		case <-m.controller.HasSyncedChecker().Done():
			m.allSeen()
		case <-ctx.Done():
		}
	})
	m.controller.RunWithContext(ctx)
}

// synced is closed once all Nodes that were there at the start have been seen and their
// leases are known, for which this node needs pod CIDRs.
func (m *leases) synced() <-chan struct{} { return m.settled }

func (m *leases) nodeSeen(obj any) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if node.Name == m.plan.nodeName {
		m.own = node
		m.ownSeen()
		m.signal()
		return
	}
	now, err := m.plan.claimOf(node)
	if err != nil {
		if !errors.Is(err, errNoLease) {
			m.log.Warn("node can't be reached", "node", node.Name, "error", err)
		}
		m.withdraw(node.Name)
		return
	}
	m.enter(node.Name, now)
}

func (m *leases) nodeGone(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	node, ok := obj.(*corev1.Node)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if node.Name == m.plan.nodeName {
		m.own = nil
		return
	}
	m.withdraw(node.Name)
}

// forget queues the removal of a node's lease, if there is one. m.mu is held.
func (m *leases) forget(node string) {
	if gone, ok := m.known[node]; ok {
		delete(m.known, node)
		m.queue = append(m.queue, lease.Event{Type: lease.EventRemoved, Lease: gone})
		m.signal()
	}
}

// signal wakes all who wait for a change. m.mu is held.
func (m *leases) signal() {
	close(m.moved)
	m.moved = make(chan struct{})
}

// look returns this node as last seen (nil: not there) and a channel that is closed
// when that may have changed.
func (m *leases) look() (*corev1.Node, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.own, m.moved
}

// current is a copy of the other nodes' leases.
func (m *leases) current() []lease.Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]lease.Lease, 0, len(m.known))
	for _, l := range m.known {
		list = append(list, l)
	}
	return list
}

// awaitSubnets returns this node's pod CIDRs as soon as the API has them. slow is called
// once, with the reason, if that takes longer than slowAfter.
func (m *leases) awaitSubnets(ctx context.Context, slowAfter time.Duration, slow func(reason string)) (subnets, error) {
	timer := time.NewTimer(slowAfter)
	defer timer.Stop()
	for {
		node, moved := m.look()
		reason := "the API has not answered with the Node " + m.plan.nodeName + " yet"
		if node != nil {
			if len(node.Spec.PodCIDRs) > 0 {
				s, err := parseSubnets(node.Spec.PodCIDRs)
				if err != nil {
					return subnets{}, fmt.Errorf("node %s: %w", node.Name, err)
				}
				return s, m.plan.checkSubnets(s)
			}
			reason = "the Node " + m.plan.nodeName + " has no pod CIDR yet; the controller-manager gives it one"
		}
		select {
		case <-moved:
		case <-timer.C:
			slow(reason)
		case <-ctx.Done():
			return subnets{}, fmt.Errorf("wait for the node's pod CIDR: %s: %w", reason, context.Cause(ctx))
		}
	}
}

// guard keeps this node's annotations as AcquireLease wrote them, should the Node be
// made anew, and returns an error when its pod CIDRs become others than s: then bridge
// and rules have to be made anew.
func (m *leases) guard(ctx context.Context, s subnets) error {
	for {
		node, moved := m.look()
		if node != nil && len(node.Spec.PodCIDRs) > 0 {
			now, err := parseSubnets(node.Spec.PodCIDRs)
			if err != nil {
				return fmt.Errorf("node %s: %w", node.Name, err)
			}
			if now != s {
				return fmt.Errorf("pod CIDR of node %s changed from %s to %s: the pod network has to be made anew", node.Name, s, now)
			}
		}
		if node != nil && !annotationsHold(node, m.annotated) {
			m.log.Info("writing the node's annotations again", "node", node.Name)
			if err := m.annotate(ctx, m.annotated); err != nil {
				return err
			}
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil
		}
	}
}

// AcquireLease implements subnet.Manager: it makes known on this node's object what
// attrs says, and returns the lease. Its pod CIDRs must be there (awaitSubnets).
func (m *leases) AcquireLease(ctx context.Context, attrs *lease.LeaseAttrs) (*lease.Lease, error) {
	node, _ := m.look()
	if node == nil {
		return nil, fmt.Errorf("node %s is gone", m.plan.nodeName)
	}
	s, err := parseSubnets(node.Spec.PodCIDRs)
	if err != nil {
		return nil, err
	}
	if err := m.plan.checkSubnets(s); err != nil {
		return nil, err
	}
	m.annotated = annotationsOf(node, attrs)
	if !annotationsHold(node, m.annotated) {
		if err := m.annotate(ctx, m.annotated); err != nil {
			return nil, err
		}
	}
	return m.plan.ownLease(s, attrs), nil
}

// annotate patches this node's status sub-resource, which takes annotations, and with
// them a right that gives less than one to the Node itself: its spec, with the taints,
// can't be changed through it. Labels could; an admission policy of k3m keeps components
// from that.
func (m *leases) annotate(ctx context.Context, annotations map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return fmt.Errorf("encode annotations: %w", err)
	}
	err = m.client.Patch(types.MergePatchType).Resource("nodes").Name(m.plan.nodeName).SubResource("status").
		Body(patch).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("annotate node %s: %w", m.plan.nodeName, err)
	}
	return nil
}

// WatchLeases implements subnet.Manager: it hands over what changes among the other
// nodes, the first time all that is known. It closes receiver when ctx ends.
func (m *leases) WatchLeases(ctx context.Context, receiver chan []lease.LeaseWatchResult) error {
	defer close(receiver)
	for {
		m.mu.Lock()
		events, moved := m.queue, m.moved
		m.queue = nil
		m.mu.Unlock()
		if len(events) > 0 {
			select {
			case receiver <- []lease.LeaseWatchResult{{Events: events}}:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil
		}
	}
}

// GetStoredMacAddresses implements subnet.Manager: the MAC addresses that this node's
// vxlan devices had, which other nodes still have in their tables.
func (m *leases) GetStoredMacAddresses(context.Context) (string, string) {
	node, _ := m.look()
	if node == nil {
		return "", ""
	}
	return vtepMAC(node.Annotations[annotationBackendData]), vtepMAC(node.Annotations[annotationBackendV6Data])
}

// GetNetworkConfig implements subnet.Manager.
func (m *leases) GetNetworkConfig(context.Context) (*subnet.Config, error) { return m.config, nil }

// Name implements subnet.Manager.
func (m *leases) Name() string { return "k3m node " + m.plan.nodeName }

// The remaining methods of subnet.Manager are for flannel's own main and its etcd
// store; none of the backends calls them.

// HandleSubnetFile implements subnet.Manager.
func (*leases) HandleSubnetFile(string, *subnet.Config, bool, ip.IP4Net, ip.IP6Net, int) error {
	return errors.ErrUnsupported
}

// RenewLease implements subnet.Manager.
func (*leases) RenewLease(context.Context, *lease.Lease) error { return errors.ErrUnsupported }

// WatchLease implements subnet.Manager.
func (*leases) WatchLease(context.Context, ip.IP4Net, ip.IP6Net, chan []lease.LeaseWatchResult) error {
	return errors.ErrUnsupported
}

// CompleteLease implements subnet.Manager.
func (*leases) CompleteLease(context.Context, *lease.Lease, *sync.WaitGroup) error {
	return errors.ErrUnsupported
}

// GetStoredPublicIP implements subnet.Manager.
func (*leases) GetStoredPublicIP(context.Context) (string, string) { return "", "" }
