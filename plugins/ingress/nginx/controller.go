package nginx

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
)

// A change reaches traffic after gather, what translate, render and nginx -t take, and the
// tenth of a second in which nginx lets its new workers start: some 200 ms, with a thousand
// Ingresses some 400 ms. Endpoints that change while a reload is under way wait for its end
// and pause more: below a second.
const (
	// gather is how long changes are gathered that come at once: the objects of one
	// kubectl apply, the endpoints of one rollout's step.
	gather = 25 * time.Millisecond
	// pause is between the end of a reload and the begin of the next, so that a cluster
	// that never rests does not make nginx do nothing but reload: each one makes new
	// workers, and leaves the old ones until their requests have ended.
	pause = 300 * time.Millisecond
	// tryAgain is when a configuration is made again that could not be, for a reason that
	// no watch tells the end of: a full disk, say.
	tryAgain = 10 * time.Second
)

// controller keeps nginx's configuration what the cluster says.
type controller struct {
	builder   *builder
	keeper    *keeper
	watches   *watches
	published *kit.Published
	recorder  *kit.Recorder
	statuses  *kit.StatusWriter
	health    *health
	metrics   *metrics
	log       hclog.Logger
	// hostAddresses are the node's own, if the component binds them itself.
	hostAddresses []netip.Addr
	exposure      kit.Exposure

	serve  func() // called once nginx has its first configuration
	served bool

	active   string    // generation
	looked   bool      // the rules were read once
	reloaded time.Time // the end of the last reload
}

// run works until ctx ends. The watches are synced.
func (c *controller) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)

	what := changedRules
	again := time.NewTimer(0) // by what time alone changes, and by failures
	<-again.C
	defer again.Stop()
	wake := func(at time.Time) {
		if !at.IsZero() {
			again.Reset(max(time.Until(at), time.Second))
		}
	}
	started := false
	for {
		began := time.Now()
		if what&(changedRules|changedEndpoints) != 0 {
			err := c.apply(ctx, what, began, func() {
				if started {
					return
				}
				started = true
				running.Go(func() {
					if err := c.keeper.run(ctx); err != nil {
						cancel(err)
					}
				})
			})
			if ctx.Err() != nil {
				break
			}
			if err != nil {
				c.log.Error("keep the configuration as it was", "err", err)
				c.health.set(partConfig, err.Error())
				wake(time.Now().Add(tryAgain))
			} else {
				c.health.set(partConfig, "")
				wake(c.builder.audit.Again)
			}
		}
		c.publish()
		what = c.next(ctx, again)
		if ctx.Err() != nil {
			break
		}
	}
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// next waits for changes, and gathers those that come at once.
func (c *controller) next(ctx context.Context, again *time.Timer) change {
	select {
	case <-ctx.Done():
		return 0
	case <-again.C:
		return changedRules
	case <-c.watches.changed:
	}
	timer := time.NewTimer(max(gather, time.Until(c.reloaded.Add(pause))))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return c.watches.take()
}

// apply makes the configuration and has nginx take it up. start starts nginx, if it was not.
func (c *controller) apply(ctx context.Context, what change, began time.Time, start func()) error {
	if what&changedRules != 0 || !c.looked {
		if err := c.builder.look(time.Now()); err != nil {
			return err
		}
		c.looked = true
	}
	g, err := c.builder.build(ctx, c.active)
	if err != nil {
		c.metrics.lastGood.Store(0)
		return err
	}
	if g.id == c.active {
		return nil
	}
	if err := c.builder.store.activate(g); err != nil {
		return err
	}
	c.metrics.confBytes.Store(int64(g.bytes))
	first := c.active == ""
	c.active = g.id
	if first {
		start()
		err = c.keeper.taken(ctx, g.id)
	} else {
		err = c.keeper.reload(ctx, g.id)
	}
	if err != nil {
		c.metrics.failures.Add(1)
		c.metrics.lastGood.Store(0)
		c.active = "?" // nginx has some other: the next one is new to it in any case
		return err
	}
	c.reloaded = time.Now()
	if !c.served {
		c.served = true
		c.serve()
		c.health.serves()
	}
	c.metrics.reloads.Add(1)
	c.metrics.lastGood.Store(1)
	c.metrics.lastAt.Store(time.Now().Unix())
	c.metrics.lastMillis.Store(time.Since(began).Milliseconds())
	c.log.Debug("nginx has a new configuration", "generation", g.id, "bytes", g.bytes, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// publish writes statuses and Events, if this node is who does, and looks how the
// component's own Service fares.
func (c *controller) publish() {
	state := c.published.State()
	pending := ""
	if state.Pending != "" && len(c.hostAddresses) == 0 {
		pending = fmt.Sprintf("the Service %s/%s has no address here: %s", kit.Namespace, serviceName, state.Pending)
	}
	c.health.set(partPublished, pending)
	if !state.Speaker {
		c.recorder.Sync("rules", nil)
		return
	}
	c.recorder.Sync("rules", c.builder.all())
	addresses := state.Ingress
	if len(addresses) == 0 {
		addresses = kit.NodeAddresses(c.hostAddresses, c.exposure)
	}
	c.statuses.Sync(kit.StatusInput{Mine: c.newest(c.builder.mine), Left: c.newest(c.builder.left), Addresses: addresses})
}

// newest are Ingresses as they are now: a write of their status is no reason to look at the
// rules anew.
func (c *controller) newest(of []*networkingv1.Ingress) []*networkingv1.Ingress {
	all := make([]*networkingv1.Ingress, 0, len(of))
	for _, i := range of {
		if now, ok := kit.Stored(c.watches.ingresses, nameOf(i)).(*networkingv1.Ingress); ok && now.UID == i.UID {
			all = append(all, now)
		}
	}
	return all
}
