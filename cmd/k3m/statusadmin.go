package main

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/health"
)

const (
	statusPath      = "/v1/status"
	statusWatchPath = statusPath + "/watch"
)

// nodeReport is what `k3m status` shows of a node.
type nodeReport struct {
	// Well is true when every part is OK and every component Ready.
	Well    bool      `json:"well"`
	Version string    `json:"version"`
	Node    string    `json:"node"`
	Started time.Time `json:"started"`
	// Parts are those of the core, Components those that are selected.
	Parts      []health.Condition           `json:"parts"`
	Components []components.ComponentStatus `json:"components"`
	// Problems are what is not well, the core's first.
	Problems []problem `json:"problems"`
	// Later are options that were changed in the files and wait for the next start.
	Later []string `json:"later,omitempty"`
}

// problem is one thing that is not well.
type problem struct {
	// What is the part or component, Why what it says, Fix what to do about it.
	What string `json:"what"`
	Why  string `json:"why"`
	Fix  string `json:"fix,omitempty"`
}

func (s *server) statusRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, r *http.Request) {
		s.probe(r.Context())
		answerAdmin(w, s.report())
	})
	mux.HandleFunc("GET "+statusWatchPath, func(w http.ResponseWriter, r *http.Request) {
		streamAdmin(w, s.reports(r.Context()))
	})
}

// reports is the report now and after each change, until ctx ends. Changes that come while a
// report is written make one.
func (s *server) reports(ctx context.Context) iter.Seq[nodeReport] {
	return func(yield func(nodeReport) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		changes := s.components.Watch(ctx)
		s.probe(ctx)
		for {
			parts := s.health.Changed()
			for drained := false; !drained; {
				select {
				case <-changes:
				default:
					drained = true
				}
			}
			report := s.report()
			if !yield(report) {
				return
			}
			var again <-chan time.Time
			if slices.ContainsFunc(report.Parts, s.failsProbe) {
				again = time.After(againInterval)
			}
			select {
			case <-changes:
			case <-parts:
			case <-again:
				s.probe(ctx)
			case <-ctx.Done():
				return
			}
		}
	}
}

// againInterval is how often a part that failed its health check is asked again while somebody
// watches: it tells nobody when it is well again.
const againInterval = 2 * time.Second

// failsProbe tells whether only a probe can find out that the part is well again.
func (s *server) failsProbe(c health.Condition) bool {
	_, asked := s.healthURLs()[c.Part]
	asked = asked || c.Part == partAPI || c.Part == partDatastore
	return asked && (c.State == health.Failed || c.State == health.Degraded)
}

func (s *server) report() nodeReport {
	r := nodeReport{
		Version: shortVersion(), Node: s.plan.cfg.NodeName, Started: s.start,
		Parts: s.health.Conditions(), Components: s.components.Status(), Later: s.live.waiting(),
		Problems: []problem{}, // also when there are none
	}
	for _, c := range r.Parts {
		if c.State != health.OK {
			r.Problems = append(r.Problems, problem{c.Part, strings.TrimSuffix(string(c.State)+": "+c.Message, ": "), c.Fix})
		}
	}
	for _, c := range r.Components {
		if c.State != components.Ready {
			r.Problems = append(r.Problems, componentProblem(c))
		}
	}
	r.Well = len(r.Problems) == 0
	return r
}

// componentProblem says what to do about a component that is not ready.
func componentProblem(c components.ComponentStatus) problem {
	why := c.Reason
	if why == "" {
		why = c.LastError
	}
	p := problem{What: c.ID, Why: strings.TrimSuffix(string(c.State)+": "+why, ": ")}
	switch c.State {
	case components.Refused:
		p.Fix = fmt.Sprintf("mend what the reason names, then `k3m component restart %s`", c.ID)
	case components.Degraded, components.Exited, components.Backoff, components.CrashLoop:
		p.Fix = fmt.Sprintf("look at `k3m component logs %s`; k3m tries again by itself", c.ID)
	case components.Launching, components.Starting:
		if why != "" { // it is slow, or failed before
			p.Fix = fmt.Sprintf("look at `k3m component logs %s`; k3m tries again by itself", c.ID)
		}
	}
	return p
}
