package plugintest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
)

// ready waits for Ready, and sees that the kind's own report came before it; of a component that
// has Services, it also waits for where it serves them.
func (r *running) ready(t *testing.T, info sdk.Info) {
	t.Helper()
	kind := info.Kind
	deadline := time.NewTimer(r.o.ReadyTimeout)
	defer deadline.Stop()
	own, last := false, client.Report(nil)
	isReady, serves := false, len(info.Services) == 0
	for {
		select {
		case report := <-r.reports:
			last = report
			switch report := report.(type) {
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
			case client.Serving:
				checkServing(t, report, info, r.o.Facts)
				serves = true
			case client.Owning:
				if err := info.CheckOwned(report.Objects); err != nil {
					t.Errorf("owns what it may not: %v", err)
				}
			case client.Ready:
				isReady = true
				if !own && (kind == "runtime" || kind == "cni") {
					t.Errorf("a component of kind %q reports Ready before its own report", kind)
				}
			}
			if isReady && serves {
				go r.drain()
				return
			}
		case <-r.ended:
			t.Fatalf("run ended before it was ready: %v", r.err)
		case <-deadline.C:
			if isReady {
				t.Fatalf("it has Services %q and did not say within %s where it serves them: call host.Serve", info.Services, r.o.ReadyTimeout)
			}
			t.Fatalf("not ready within %s; the last report was %#v", r.o.ReadyTimeout, last)
		}
	}
}

// checkServing finds what k3m would leave out with a warning.
func checkServing(t *testing.T, s client.Serving, info sdk.Info, facts sdk.Facts) {
	t.Helper()
	for _, e := range s.Endpoints {
		if !slices.Contains(info.Services, e.Service) {
			t.Errorf("serves %s, which Info.Services does not name", e.Service)
		}
		for _, a := range e.Addresses {
			if !slices.Contains(facts.PodGateways, a) && !slices.Contains(facts.NodeIPs, a) {
				t.Errorf("serves %s on %s, which is neither a pod gateway nor an address of the node", e.Service, a)
			}
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
