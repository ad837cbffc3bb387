package nftables

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

const (
	// componentsWait is how long the first transaction waits for what nodes say of their
	// components, once all else is known. A cluster may have none that says anything.
	componentsWait = 3 * time.Second
	// askAgain is when the pods of this node are asked for again after the API did not
	// answer; the addresses in question stay closed until then.
	askAgain = time.Second
)

// retries are the pauses after transactions that the kernel did not take.
var retries = wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 10, Cap: 30 * time.Second}

// reporter is told how the component fares; sdk.Host is one.
type reporter interface {
	Ready()
	Degraded(reason string)
}

// changes is a queue of what has to be done to the engine.
type changes struct {
	mu    sync.Mutex
	queue []func(*engine)
	wake  chan struct{} // holds one token when queue is not empty
}

func newChanges() *changes { return &changes{wake: make(chan struct{}, 1)} }

func (c *changes) add(change func(*engine)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, change)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// apply does all that is there. What comes while a transaction runs is so the next one's.
func (c *changes) apply(e *engine) {
	c.mu.Lock()
	queue := c.queue
	c.queue = nil
	c.mu.Unlock()
	for _, change := range queue {
		change(e)
	}
}

// loop is the component at work.
type loop struct {
	clients    clients
	node       string
	records    string // see config.AddressRecords
	programmer *programmer
	engine     *engine
	changes    *changes
	metrics    *metrics
	log        hclog.Logger
	report     reporter

	tasks   sync.WaitGroup
	asking  bool      // podsOn is under way
	askNext time.Time // not before
	retry   wait.Backoff
	retryAt time.Time
	failing string // what was last reported
}

// run does the work until ctx ends, and returns nil then, or until it can't go on.
func (l *loop) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer l.tasks.Wait()
	defer cancel()
	deleted, watchFailed, stop, err := watchTable()
	if err != nil {
		return err
	}
	defer stop()
	l.engine.refused = func(policy objectKey, d direction) {
		l.log.Error("a network policy is too large and allows nobody; split it, or let fewer peers and ports multiply in one rule",
			"namespace", policy.namespace, "name", policy.name, "direction", d.String())
	}
	// Before anything is known: what the last run left stays until all is.
	l.awaitObjects(ctx)
	recordsEnded := l.watchRecords(ctx)
	l.retry = retries
	if ctx.Err() != nil {
		return nil
	}
	l.sync(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.changes.wake:
		case <-deleted:
			if !l.programmer.intact(ctx) && ctx.Err() == nil {
				l.log.Warn("someone removed rules of the network policies; making them anew")
				l.programmer.fresh = true
			}
		case err := <-recordsEnded:
			return err // the next start reads all anew
		case err := <-watchFailed:
			return err // nobody would tell when the rules go
		case <-l.nextTimer():
		}
		l.sync(ctx)
	}
}

// awaitObjects starts the watches and waits for what there is, or for the end of ctx.
func (l *loop) awaitObjects(ctx context.Context) {
	var synced []cache.DoneChecker
	start := func(run func(), done cache.DoneChecker) {
		l.tasks.Go(run)
		synced = append(synced, done)
	}
	start(watch(ctx, l.clients.core, "pods", slimPod, func(o *corev1.Pod, there bool) {
		var p *pod
		if there {
			p = podOf(o, l.node)
		}
		key := objectKey{o.Namespace, o.Name}
		l.changes.add(func(e *engine) { e.setPod(key, p) })
	}))
	start(watch(ctx, l.clients.core, "namespaces", slimNamespace, func(o *corev1.Namespace, there bool) {
		name, nsLabels := o.Name, labels.Set(o.Labels)
		l.changes.add(func(e *engine) { e.setNamespace(name, nsLabels, there) })
	}))
	start(watch(ctx, l.clients.networking, "networkpolicies", slimPolicy, func(o *networkingv1.NetworkPolicy, there bool) {
		var p *policy
		if there {
			p = policyOf(o)
		}
		key := objectKey{o.Namespace, o.Name}
		l.changes.add(func(e *engine) { e.setPolicy(key, p) })
	}))
	run, componentsSynced := watch(ctx, l.clients.k3m, "nodecomponents", slimComponents, func(o *nodeComponents, there bool) {
		var all []component
		if there {
			all = componentsOf(o.Status)
		}
		node := o.Name
		l.changes.add(func(e *engine) { e.setComponents(node, all) })
	})
	l.tasks.Go(run)

	if !cache.WaitFor(ctx, "", synced...) {
		return
	}
	short, cancel := context.WithTimeout(ctx, componentsWait)
	defer cancel()
	if !cache.WaitFor(short, "", componentsSynced) && ctx.Err() == nil {
		l.log.Warn("nothing is known of the nodes' components yet: policies that name them let nobody there until it is")
	}
}

// watchRecords follows the records of pod addresses, if there are any: on the returned
// channel comes an error, if it has to be done anew.
func (l *loop) watchRecords(ctx context.Context) <-chan error {
	ended := make(chan error, 1)
	if len(l.programmer.network.subnets) == 0 {
		l.log.Warn("the pod network is not k3m's: a pod is not closed before the API tells its address")
		return ended
	}
	known := make(chan struct{})
	l.tasks.Go(func() {
		tell := func(addr netip.Addr, taken bool) {
			l.changes.add(func(e *engine) {
				if taken {
					e.reserve(addr)
				} else {
					e.release(addr, time.Now())
				}
			})
		}
		ready := false
		err := watchAddresses(ctx, l.records, tell, func() { ready = true; close(known) })
		switch {
		case err == nil:
		case ready:
			ended <- err
		default:
			l.log.Warn("the records of pod addresses can't be read: while there are policies, pods get no traffic before "+
				"the API tells their address, a second or two after their start", "error", err)
			close(known)
		}
	})
	select {
	case <-known:
	case <-ctx.Done():
	}
	return ended
}

// nextTimer fires when something has to be done though nothing happened: another try, or
// the end of a void claim. Mostly never.
func (l *loop) nextTimer() <-chan time.Time {
	next := l.engine.expire(time.Now())
	for _, at := range []time.Time{l.retryAt, l.askNext} {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if next.IsZero() {
		return nil
	}
	return time.After(time.Until(next))
}

// sync brings the kernel up to date.
func (l *loop) sync(ctx context.Context) {
	l.changes.apply(l.engine)
	l.engine.expire(time.Now())
	l.ask(ctx)
	if time.Now().Before(l.retryAt) {
		return
	}
	l.retryAt = time.Time{}
	start := time.Now()
	operations, err := l.programmer.sync(ctx, l.engine)
	if ctx.Err() != nil {
		return
	}
	l.metrics.synced(l.engine, operations, time.Since(start), err)
	if err == nil {
		if operations > 0 {
			l.log.Debug("programmed", "operations", operations, "took", time.Since(start))
		}
		if l.failing != "" {
			l.log.Info("the network policies are in place again")
		}
		l.failing, l.retry = "", retries
		if reason := l.programmer.network.unseen(); reason != "" {
			l.report.Degraded(reason)
		} else {
			l.report.Ready()
		}
		return
	}
	l.retryAt = time.Now().Add(l.retry.Step())
	if err.Error() != l.failing {
		l.failing = err.Error()
		l.log.Error("the network policies of now are not in place; those of before hold, and pods without any are closed", "error", err)
		l.report.Degraded(err.Error())
	}
}

// ask finds out, in the background, whose the addresses can be that were handed out to
// nobody knows whom.
func (l *loop) ask(ctx context.Context) {
	if l.asking || time.Now().Before(l.askNext) {
		return
	}
	l.askNext = time.Time{}
	if !l.engine.closed() {
		return
	}
	addrs := l.engine.unknown()
	if len(addrs) == 0 {
		return
	}
	l.asking = true
	l.tasks.Go(func() {
		pods, err := podsOn(ctx, l.clients.core, l.node)
		l.changes.add(func(e *engine) {
			l.asking = false
			if err == nil {
				e.suspect(addrs, pods)
				return
			}
			l.askNext = time.Now().Add(askAgain)
			if !errors.Is(err, context.Canceled) {
				l.log.Debug("new pods stay closed until the API answers", "error", err)
			}
		})
	})
}

var errRefused = errors.New("the API refuses the component's credentials; the next start reads them anew")
