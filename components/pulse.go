package components

import (
	"context"
	"fmt"
	"time"
)

const (
	// pulseInterval is how often a running component's process is asked for a sign of
	// life; pulseMisses is how many times in a row it may stay silent.
	pulseInterval = 30 * time.Second
	pulseMisses   = 2
)

// pulse returns an error when the process lives but has stopped to answer: a deadlock, or
// a process that was frozen. Nothing else tells of it. It returns nil when ctx ends, or
// when the connection breaks, which others notice.
func (p *process) pulse(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for misses := 0; misses < pulseMisses; {
		select {
		case <-tick.C:
		case <-p.died():
			return nil
		case <-ctx.Done():
			return nil
		}
		// Who it is, a plugin may be asked at any time, and it answers without working.
		askCtx, cancel := context.WithTimeout(ctx, min(interval, askTimeout))
		_, err := p.Info(askCtx)
		silent := askCtx.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case silent:
			misses++
		case err != nil:
			return nil
		default:
			misses = 0
		}
	}
	return fmt.Errorf("the plugin's process lives but has not answered for %s", (pulseMisses * interval).Round(time.Second))
}
