package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/k3m-io/k3m/test/harness"
)

// asking is a client that asks the same again and again, a new connection each time.
type asking struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu sync.Mutex
	answers
}

type answers struct {
	asked    int
	failures []string
	longest  time.Duration // between two good answers
}

// askPause is between two requests of an asking client; a second of outage is some 50
// failures then.
const askPause = 20 * time.Millisecond

func ask(t *testing.T, client *http.Client, url string) *asking {
	return keepAsking(t, func(ctx context.Context) error {
		_, err := harness.Get(ctx, client, url)
		return err
	})
}

// keepAsking calls a question again and again until the test ends or stop is called.
func keepAsking(t *testing.T, question func(context.Context) error) *asking {
	ctx, cancel := context.WithCancel(t.Context())
	a := &asking{cancel: cancel, done: make(chan struct{})}
	t.Cleanup(func() { a.stop() })
	go func() {
		defer close(a.done)
		start, last := time.Now(), time.Now()
		for ctx.Err() == nil {
			// The request that is under way when the client stops still gets its answer.
			err := question(context.WithoutCancel(ctx))
			a.mu.Lock()
			a.asked++
			if err != nil {
				a.failures = append(a.failures, fmt.Sprintf("after %s: %v", time.Since(start).Round(time.Millisecond), err))
			} else {
				a.longest = max(a.longest, time.Since(last))
				last = time.Now()
			}
			a.mu.Unlock()
			select {
			case <-time.After(askPause):
			case <-ctx.Done():
			}
		}
	}()
	return a
}

// so far gives what was seen since the last call.
func (a *asking) sofar() answers {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.answers
	a.answers = answers{}
	return r
}

func (a *asking) stop() answers {
	a.cancel()
	<-a.done
	return a.sofar()
}
