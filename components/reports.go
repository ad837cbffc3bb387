package components

import (
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/k3m-io/k3m/sdk/client"
	"golang.org/x/time/rate"
)

const (
	// reportInterval is how often a component's reports count, once it has used up
	// reportBurst: each wakes all that wait, and may be a line in the log.
	reportInterval = time.Second
	reportBurst    = 20
)

// reports hands on what a process reports, at a limited rate: of what comes faster the
// newest report of each subject, when reportInterval is over.
//
//	newReports ── add (by one goroutine) ── end
type reports struct {
	take func(client.Report) // called by one goroutine at a time
	pace *rate.Limiter

	mu    sync.Mutex
	late  []client.Report // one of a subject at most
	timer *time.Timer     // runs while something is late
	ready bool            // the first Ready was handed on
	ended bool
}

func newReports(take func(client.Report)) *reports {
	return &reports{take: take, pace: rate.NewLimiter(rate.Every(reportInterval), reportBurst)}
}

func (r *reports) add(report client.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.late = slices.DeleteFunc(r.late, func(other client.Report) bool { return subject(other) == subject(report) })
	if r.firstReady(report) || len(r.late) == 0 && r.pace.Allow() {
		r.take(report)
		return
	}
	if r.late = append(r.late, report); r.timer == nil {
		r.timer = time.AfterFunc(reportInterval, r.takeLate)
	}
}

// firstReady: others wait for the first Ready, and what follows it means something else
// than what comes before.
func (r *reports) firstReady(report client.Report) bool {
	if _, ok := report.(client.Ready); !ok || r.ready {
		return false
	}
	r.ready = true
	return true
}

func (r *reports) takeLate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = nil
	for _, report := range r.late { // none after end
		r.pace.Allow() // it counts
		r.take(report)
	}
	r.late = nil
}

// end drops what is late. Nothing is handed on after it.
func (r *reports) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late, r.ended = nil, true
	if r.timer != nil {
		r.timer.Stop()
	}
}

// subject is what a report replaces reports of: a component is ready or degraded.
func subject(r client.Report) reflect.Type {
	if _, ok := r.(client.Degraded); ok {
		r = client.Ready{}
	}
	return reflect.TypeOf(r)
}
