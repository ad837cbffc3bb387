package sdk

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/k3m-io/k3m/sdk/proto/pluginv1"
)

func newTestHost() *Host { return &Host{wake: make(chan struct{}, 1)} }

// sorts names what is queued.
func sorts(reports []*pluginv1.Report) string {
	var s []string
	for _, r := range reports {
		switch r := r.GetReport().(type) {
		case *pluginv1.Report_Ready:
			s = append(s, "ready")
		case *pluginv1.Report_Degraded:
			s = append(s, "degraded: "+r.Degraded.GetReason())
		case *pluginv1.Report_RuntimeReady:
			s = append(s, "runtime "+r.RuntimeReady.GetEndpoint())
		case *pluginv1.Report_NetworkReady:
			s = append(s, "network "+strings.Join(r.NetworkReady.GetGateways(), " "))
		}
	}
	return strings.Join(s, ", ")
}

func TestReports(t *testing.T) {
	gateways := []netip.Addr{netip.MustParseAddr("10.42.0.1"), netip.MustParseAddr("fd00::1")}
	for _, c := range []struct {
		name   string
		report func(h *Host)
		want   string
	}{
		{"none", func(*Host) {}, ""},
		{"ready counts once", func(h *Host) { h.Ready(); h.take(); h.Ready() }, ""},
		{"recovery is told", func(h *Host) { h.Ready(); h.take(); h.Degraded("full"); h.take(); h.Ready() }, "ready"},
		{"the same trouble is told once", func(h *Host) { h.Degraded("full"); h.take(); h.Degraded("full") }, ""},
		{"the last of what waits counts", func(h *Host) { h.Degraded("a"); h.Degraded("b"); h.Ready() }, "ready"},
		{"a kind's own report stays before ready", func(h *Host) { h.RuntimeReady("unix:///a"); h.Ready() }, "runtime unix:///a, ready"},
		{"two sorts don't replace each other", func(h *Host) { h.NetworkReady(gateways); h.RuntimeReady("unix:///a"); h.NetworkReady(gateways[:1]) },
			"runtime unix:///a, network 10.42.0.1"},
		{"nothing after the end", func(h *Host) { h.close(); h.Ready() }, ""},
		{"a reason is cut and made printable", func(h *Host) { h.Degraded("a\x00" + strings.Repeat("b", 2000)) },
			"degraded: a\uFFFD" + strings.Repeat("b", maxReason-4) + "…"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newTestHost()
			c.report(h)
			if got := sorts(h.take()); got != c.want {
				t.Errorf("queued: %s\nwant: %s", got, c.want)
			}
		})
	}
}

// TestReportsNeverWait: nobody reads, and a hundred thousand reports from ten goroutines
// leave a queue of three.
func TestReportsNeverWait(t *testing.T) {
	h := newTestHost()
	var wg sync.WaitGroup
	for n := range 10 {
		wg.Go(func() {
			for range 2500 {
				h.Ready()
				h.Degraded(strings.Repeat("x", n))
				h.RuntimeReady("unix:///a")
				h.NetworkReady(nil)
			}
		})
	}
	wg.Wait()
	if n := len(h.take()); n > 3 {
		t.Errorf("%d reports are queued", n)
	}
}

func TestFactsAreTheCallersOwn(t *testing.T) {
	h := newTestHost()
	h.facts.PodGateways = []netip.Addr{netip.MustParseAddr("10.42.0.1")}
	h.Facts().PodGateways[0] = netip.Addr{}
	if got := h.Facts().PodGateways[0].String(); got != "10.42.0.1" {
		t.Errorf("the gateway became %s", got)
	}
}
