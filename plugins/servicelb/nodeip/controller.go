package nodeip

import (
	"context"
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"
	"k8s.io/apimachinery/pkg/types"
)

// controller decides anew whenever something changed.
type controller struct {
	cfg      config
	reserved map[port]string
	self     string         // the node's name
	networks []netip.Prefix // of pods and Services
	clients  *clients
	watches  *watches
	metrics  *metrics
	log      hclog.Logger
	stories  map[types.UID]*story
	// healthy and ill report how the component fares.
	healthy func()
	ill     func(reason string)
}

// After a failure the next try comes after retryMin, then after twice as long, up to
// retryMax: the API tells nobody that it would take a write now.
const (
	retryMin = 200 * time.Millisecond
	retryMax = 30 * time.Second
)

// run works until ctx ends.
func (c *controller) run(ctx context.Context) {
	c.watches.start(ctx)
	defer c.watches.stopped()
	if !c.synced(ctx) {
		return
	}
	// No timer runs unless something is to be tried, or told, later.
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := retryMin
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.watches.changed:
		case <-timer.C:
		}
		timer.Stop()
		next, err := c.pass(ctx, time.Now())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			c.metrics.failures.Add(1)
			c.ill(err.Error())
			c.log.Warn("the next try follows", "after", retry, "err", err)
			timer.Reset(retry)
			retry = min(2*retry, retryMax)
		default:
			c.healthy()
			retry = retryMin
			if next > 0 {
				timer.Reset(next)
			}
		}
	}
}

// synced waits for the watches, and says what is missing if that takes long. Nothing is
// decided on half a picture: a restart must change nothing.
func (c *controller) synced(ctx context.Context) bool {
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if c.watches.synced(soon) {
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	c.ill("can't read " + c.watches.missing() + " from the API yet; Services keep the addresses that they have")
	return c.watches.synced(ctx)
}

// pass decides on what is known now, and writes and tells it. It says when to pass again
// if nothing changes; zero is never.
func (c *controller) pass(ctx context.Context, now time.Time) (time.Duration, error) {
	if !c.watches.leads(c.self) {
		c.metrics.leading.Store(0)
		c.metrics.count(nil)
		clear(c.stories)
		return 0, nil
	}
	c.metrics.leading.Store(1)
	verdicts := assign(c.watches.snapshot(c.cfg, c.networks), c.reserved)
	c.metrics.count(verdicts)
	if err := c.write(ctx, verdicts); err != nil {
		return 0, err // what was not written is not told
	}
	return c.tell(ctx, verdicts, now)
}
