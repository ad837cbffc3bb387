package components

import (
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// firstDelay is before the first restart: pods must not notice that their runtime or
	// network component died.
	firstDelay = 20 * time.Millisecond
	// maxDelay bounds the back-off. The kubelet waits up to five minutes for a pod; a
	// node is no use without its components.
	maxDelay = 30 * time.Second
	// healthyAfter is how long a component must have been ready for its next death to
	// count as the first.
	healthyAfter = 10 * time.Second
	// healthyUntilKilled is the same for one that was killed from outside, which is not
	// its own failure.
	healthyUntilKilled = time.Second
	// crashLoopAfter is how many failures in a row make a crash loop.
	crashLoopAfter = 5
)

// backoff says how long to wait before a restart. The zero value is ready for use.
type backoff struct {
	failures int
	steps    wait.Backoff
}

// next counts a failure of a component that had been ready for some time, or never (0).
func (b *backoff) next(ready time.Duration, killed bool) time.Duration {
	if ready >= healthyAfter || killed && ready >= healthyUntilKilled {
		b.failures = 0
	}
	b.failures++
	if b.failures == 1 {
		b.steps = wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 100, Cap: maxDelay}
		return wait.Jitter(firstDelay, 0.5)
	}
	return b.steps.Step()
}

func (b *backoff) crashLoop() bool { return b.failures >= crashLoopAfter }
