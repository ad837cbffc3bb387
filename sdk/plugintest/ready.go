package plugintest

import (
	"context"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk/client"
)

// ready waits for Ready, and sees that the kind's own report came before it.
func (r *running) ready(t *testing.T, kind string) {
	t.Helper()
	deadline := time.NewTimer(r.o.ReadyTimeout)
	defer deadline.Stop()
	own, last := false, client.Report(nil)
	for {
		select {
		case report := <-r.reports:
			last = report
			switch report.(type) {
			case client.RuntimeReady:
				if kind != "runtime" {
					t.Errorf("a component of kind %q reports RuntimeReady", kind)
				}
				own = true
			case client.NetworkReady:
				if kind != "cni" {
					t.Errorf("a component of kind %q reports NetworkReady", kind)
				}
				own = true
			case client.Ready:
				if !own && (kind == "runtime" || kind == "cni") {
					t.Errorf("a component of kind %q reports Ready before its own report", kind)
				}
				go r.drain()
				return
			}
		case <-r.ended:
			t.Fatalf("run ended before it was ready: %v", r.err)
		case <-deadline.C:
			t.Fatalf("not ready within %s; the last report was %#v", r.o.ReadyTimeout, last)
		}
	}
}

// drain reads what comes later until the run has ended.
func (r *running) drain() {
	for {
		select {
		case <-r.reports:
		case <-r.ended:
			return
		}
	}
}

func (r *running) stop(t *testing.T, o Options, p *peer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), o.StopTimeout)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Fatalf("it did not end within %s of stop: %v", o.StopTimeout, err)
	}
	select {
	case <-r.ended:
	case <-ctx.Done():
		t.Fatalf("the stream of run is open %s after stop", o.StopTimeout)
	}
	if r.err != nil {
		t.Errorf("run ended with %v after stop, want nil", r.err)
	}
}
