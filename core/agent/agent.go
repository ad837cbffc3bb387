package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// Agent is one node. Its life:
//
//	New ── Run ─┬─ Joined ─── NodeRegistered ─── NodeReady
//	            └─ returns: ctx ended, or the first part that failed
//
// The channels stay open when Run returns before the event came.
type Agent struct {
	opts Options

	joined     chan struct{}
	registered chan struct{}
	ready      chan struct{}

	clock func() time.Time // when certificates are renewed; time.Now but in tests

	mu sync.Mutex
	id *identity // set before joined is closed
}

// New makes an agent. It touches nothing.
func New(opts Options) (*Agent, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	return &Agent{
		opts:       opts,
		joined:     make(chan struct{}),
		registered: make(chan struct{}),
		ready:      make(chan struct{}),
		clock:      time.Now,
	}, nil
}

// Joined is closed when the node has its certificates and Cluster its answer.
func (a *Agent) Joined() <-chan struct{} { return a.joined }

// NodeRegistered is closed when the node's object is there, with its addresses.
func (a *Agent) NodeRegistered() <-chan struct{} { return a.registered }

// NodeReady is closed when the kubelet of this run (not of one before a restart) has
// reported the node as Ready.
func (a *Agent) NodeReady() <-chan struct{} { return a.ready }

// Cluster is what every node of the cluster agrees on. It is empty before Joined.
func (a *Agent) Cluster() wire.ClusterFacts {
	if id := a.identity(); id != nil {
		return id.cluster
	}
	return wire.ClusterFacts{}
}

// NodeConfig is a client of the API as the node itself (system:node:<name>). It is an error
// before Joined.
func (a *Agent) NodeConfig() (*rest.Config, error) {
	id := a.identity()
	if id == nil {
		return nil, errors.New("the node has not joined yet")
	}
	return clientcmd.BuildConfigFromFlags("", id.files.kubeletKubeconfig)
}

// identity is nil before Joined.
func (a *Agent) identity() *identity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.id
}

func (a *Agent) setIdentity(id *identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.id = id
}

// Run joins the cluster and runs the node until ctx ends (nil) or a part of it fails (an error
// that names the part). Pods stay as they are in both cases. Call it once.
//
// The kubelet and kube-proxy leave some goroutines behind when they end: Run is meant to be
// followed by the end of the process.
func (a *Agent) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	host := a.prepareHost(gctx, g)
	g.Go(func() error {
		id, err := a.join(gctx)
		if err != nil {
			return fmt.Errorf("join the cluster: %w", err)
		}
		a.setIdentity(id)
		close(a.joined)
		return a.renew(gctx)
	})
	g.Go(func() error { return part("kubelet", a.runKubelet(gctx, host)) })
	g.Go(func() error { return part("kube-proxy", a.runProxy(gctx, host)) })
	g.Go(func() error { return part("watch the node", a.watchNode(gctx)) })
	err := g.Wait()
	if ctx.Err() != nil {
		return nil // asked to stop; what fell over on the way down is no news
	}
	return err
}

// part names the part that failed. A part that returns before it was asked to has failed, too;
// an errgroup's context that ended is somebody else's failure.
func part(name string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

// wait blocks until the event or the end of ctx.
func wait(ctx context.Context, event <-chan struct{}) error {
	select {
	case <-event:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
