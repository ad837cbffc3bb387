package clustercomponents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/core/health"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

const (
	// summaryInterval is the time between two summaries, once summaryBurst of them were
	// made: what changes meanwhile goes into the next.
	summaryInterval = time.Second
	summaryBurst    = 6
)

// Options are what a Cluster needs.
type Options struct {
	// Config is a client of the API that may do anything.
	Config *rest.Config
	// ClusterDNS, ClusterDomain and ServerCA (PEM) stand for the placeholders in the
	// components' objects.
	ClusterDNS    []netip.Addr
	ClusterDomain string
	ServerCA      []byte
	// Health hears when objects of components can't be applied; may be nil.
	Health *health.Board
	Logger *slog.Logger
}

// Cluster keeps, on a server, what follows from what the nodes say of their components.
//
//	New ── Run (once) ── Installed
//	       SetSelected, SetOwned, Withdraw at any time, by any goroutine; before SetSelected is called
//	       the first time, nothing is removed
type Cluster struct {
	opts      Options
	client    kubernetes.Interface
	dynamic   dynamic.Interface
	metadata  metadata.Interface
	installed chan struct{}

	// Each holds one token when there may be work for its loop.
	sliceWork, summaryWork signal

	mu         sync.Mutex
	selected   []sdk.Info
	isSelected bool // SetSelected was called
	owned      map[string][]json.RawMessage
	reports    map[string]report
	nodes      map[string]nodeFacts
	services   map[string]serviceFacts
	removed    map[string]bool // Component objects
	withdrawn  map[string]bool // nodes
}

// report is a NodeComponents object, read.
type report struct {
	status nodestatus.NodeStatus
}

// signal wakes one loop.
type signal chan struct{}

func (s signal) raise() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// New makes no request.
func New(o Options) (*Cluster, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	c := &Cluster{
		opts: o, installed: make(chan struct{}),
		sliceWork: make(signal, 1), summaryWork: make(signal, 1),
		reports: map[string]report{}, nodes: map[string]nodeFacts{}, services: map[string]serviceFacts{},
		removed: map[string]bool{}, withdrawn: map[string]bool{},
	}
	var errs [3]error
	c.client, errs[0] = kubernetes.NewForConfig(o.Config)
	c.dynamic, errs[1] = dynamic.NewForConfig(o.Config)
	c.metadata, errs[2] = metadata.NewForConfig(o.Config)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("keep the cluster's components: %w", err)
	}
	return c, nil
}

// Installed is closed when the API serves NodeComponents and Components.
func (c *Cluster) Installed() <-chan struct{} { return c.installed }

// SetSelected says which components the cluster has from now on. Objects of those that are gone
// are removed, after those of the new ones were applied. Where two of them own the same object, the
// first has it. It returns at once.
func (c *Cluster) SetSelected(infos []sdk.Info) {
	c.mu.Lock()
	c.selected, c.isSelected = slices.Clone(infos), true
	c.mu.Unlock()
	c.sliceWork.raise()
	c.summaryWork.raise()
}

// SetOwned says what the objects are that components have declared and made up, by ID (see
// sdk.Host.Own). Those of a component that is not in it stay as they are. It returns at once, and
// owned is the Cluster's afterwards.
func (c *Cluster) SetOwned(owned map[string][]json.RawMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reflect.DeepEqual(c.owned, owned) {
		return
	}
	c.owned = owned
	c.summaryWork.raise()
}

// Withdraw takes back the endpoints of a node for the rest of the Run, whatever comes of what the node
// said before. It returns at once; a Run that ends after it has withdrawn them.
func (c *Cluster) Withdraw(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.withdrawn[node] = true
	c.sliceWork.raise()
}

// Run installs what is needed and keeps everything until ctx ends; it returns nil then.
func (c *Cluster) Run(ctx context.Context) error {
	if !c.install(ctx) {
		return nil
	}
	close(c.installed)
	loops, ctx := errgroup.WithContext(ctx)
	watches, err := c.watch(ctx)
	if err != nil {
		return endedBy(ctx, fmt.Errorf("keep the cluster's components: %w", err))
	}
	loops.Go(func() error { return c.keepSlices(ctx, watches) })
	loops.Go(func() error { return c.keepComponents(ctx, watches) })
	err = loops.Wait()
	watches.end()
	return endedBy(ctx, err)
}

// install installs until it succeeds, or ctx ends: what keeps it from it may pass, and the
// components' state is not worth the server's end.
func (c *Cluster) install(ctx context.Context) bool {
	for failed := false; ; failed = true {
		err := install(ctx, c.client, c.dynamic)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !failed {
			c.opts.Logger.Warn("the components' state can't be shown in the API yet; trying again", "error", err)
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return false
		}
	}
}

func endedBy(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

// loop calls work each time that the signal is raised, at most every interval after a burst. An
// error makes it try again; the first of a row is logged.
func (c *Cluster) loop(ctx context.Context, wake signal, interval time.Duration, burst int, what string, work func(context.Context) error) error {
	pace := rate.NewLimiter(rate.Every(interval), burst)
	failing := false
	var retry <-chan time.Time
	for {
		select {
		case <-wake:
		case <-retry:
		case <-ctx.Done():
			return nil
		}
		retry = nil
		if err := pace.Wait(ctx); err != nil {
			return nil //nolint:nilerr // ctx ended
		}
		err := work(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // an error would be that of the stop
		}
		switch {
		case err == nil:
			failing = false
		default:
			if !failing {
				c.opts.Logger.Warn(what+"; trying again", "error", err)
			}
			failing = true
			retry = time.After(retryPause)
		}
	}
}

// nodeFacts are what of a Node object matters here.
type nodeFacts struct {
	// lost nodes have not been heard of for so long that the cluster has given them up. A
	// node that says of itself that it is not ready still knows how its components fare.
	lost      bool
	server    bool
	created   time.Time
	podCIDRs  []netip.Prefix
	addresses []netip.Addr
}

// serverLabel is on the nodes that are servers. A kubelet can't give it to its own node.
const serverLabel = "node-role.kubernetes.io/control-plane"

func factsOf(node *corev1.Node) nodeFacts {
	f := nodeFacts{created: node.CreationTimestamp.Time}
	_, f.server = node.Labels[serverLabel]
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			f.lost = c.Status == corev1.ConditionUnknown
		}
	}
	for _, text := range node.Spec.PodCIDRs {
		if cidr, err := netip.ParsePrefix(text); err == nil {
			f.podCIDRs = append(f.podCIDRs, cidr)
		}
	}
	for _, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
			continue
		}
		if ip, err := netip.ParseAddr(a.Address); err == nil {
			f.addresses = append(f.addresses, ip.Unmap())
		}
	}
	return f
}

// serviceFacts are what of a Service object matters here.
type serviceFacts struct {
	uid string
	// selector says that a controller finds the endpoints: k3m keeps out of it.
	selector bool
	// sameNode says that clients shall be answered on their own node where that is possible.
	sameNode bool
}

func factsOfService(s *corev1.Service) serviceFacts {
	d := s.Spec.TrafficDistribution
	return serviceFacts{
		uid: string(s.UID), selector: len(s.Spec.Selector) > 0,
		sameNode: d != nil && *d == corev1.ServiceTrafficDistributionPreferSameNode,
	}
}

// setNode, setService and setReport take what a watch says; nil means that the object is gone.
func (c *Cluster) setNode(name string, f *nodeFacts) {
	if change(c, c.nodes, name, f) {
		c.sliceWork.raise()
		c.summaryWork.raise()
	}
}

func (c *Cluster) setService(name string, f *serviceFacts) {
	if change(c, c.services, name, f) {
		c.sliceWork.raise()
	}
}

func (c *Cluster) setReport(node string, r *report) {
	if change(c, c.reports, node, r) {
		c.sliceWork.raise()
		c.summaryWork.raise()
	}
}

func change[T any](c *Cluster, in map[string]T, name string, to *T) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, had := in[name]
	switch {
	case to == nil:
		delete(in, name)
		return had
	case had && reflect.DeepEqual(old, *to):
		return false
	}
	in[name] = *to
	return true
}
