package componentmetrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

func says(text string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(text), nil }
}

// The registry is the process's, as in a node: each case changes what the components say.
func TestNodeMetrics(t *testing.T) {
	sleepy := metrics.NewHistogram(&metrics.HistogramOpts{Name: "core_sleep_seconds", Help: "Of the core."})
	legacyregistry.MustRegister(sleepy)
	var sources []Source
	if err := Register(func() []Source { return sources }, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		sources []Source
		has     []string
		hasNot  []string
	}{
		"what the core knows": {
			sources: []Source{{ID: "dns.a", Up: true, Restarts: 3, MemoryBytes: 1024, CPU: 1500 * time.Millisecond}, {ID: "cni.b"}},
			has: []string{
				`k3m_component_up{component="dns.a"} 1`, `k3m_component_up{component="cni.b"} 0`, `k3m_component_restarts_total{component="dns.a"} 3`,
				`k3m_component_memory_bytes{component="dns.a"} 1024`, `k3m_component_cpu_seconds_total{component="dns.a"} 1.5`,
			},
			hasNot: []string{`k3m_component_metrics_valid`, `k3m_component_memory_bytes{component="cni.b"}`},
		},
		"a component's own": {
			sources: []Source{{ID: "dns.a", Text: says("# HELP queries_total Q.\n# TYPE queries_total counter\nqueries_total{zone=\"x\"} 7\n" +
				"# TYPE took histogram\ntook_bucket{le=\"1\"} 2\ntook_bucket{le=\"+Inf\"} 2\ntook_sum 1\ntook_count 2\n")}},
			has: []string{`queries_total{component="dns.a",zone="x"} 7`, `took_bucket{component="dns.a",le="1"} 2`, `took_count{component="dns.a"} 2`,
				`k3m_component_metrics_valid{component="dns.a"} 1`},
		},
		"the label itself": {
			sources: []Source{{ID: "dns.a", Text: says("x{component=\"cni.b\"} 1\n")}},
			has:     []string{`x{component="dns.a",exported_component="cni.b"} 1`},
		},
		"the label itself, twice over": {
			sources: []Source{{ID: "dns.a", Text: says("x{component=\"b\",exported_component=\"c\"} 1\nok 1\n")}},
			has:     []string{`ok{component="dns.a"} 1`}, hasNot: []string{"\nx{"},
		},
		"names of the core's": {
			sources: []Source{{ID: "dns.a", Text: says("go_goroutines 666\nworkqueue_depth 666\nk3m_component_up{component=\"x\"} 666\ncore_sleep_seconds 666\n" +
				"core_sleep_seconds_count 666\ncore_sleep_seconds_bucket 666\nk3m_component_up 666\nok 1\n")}},
			has: []string{`ok{component="dns.a"} 1`}, hasNot: []string{" 666"},
		},
		"two that disagree": {
			sources: []Source{
				{ID: "dns.a", Text: says("# HELP x One.\n# TYPE x counter\nx 1\n")},
				{ID: "dns.b", Text: says("# HELP x Two.\n# TYPE x gauge\nx 2\nok 1\n")},
				{ID: "dns.c", Text: says("# HELP x Three.\n# TYPE x counter\nx 3\n")},
			},
			has: []string{"# HELP x One.\n# TYPE x counter", `x{component="dns.a"} 1`, `x{component="dns.c"} 3`, `ok{component="dns.b"} 1`}, hasNot: []string{`x{component="dns.b"}`},
		},
		"the same twice": {
			sources: []Source{{ID: "dns.a", Text: says("x{l=\"1\"} 1\nx{l=\"1\"} 2\nok 1\n")}},
			has:     []string{`x{component="dns.a",l="1"} 1`, `ok{component="dns.a"} 1`}, hasNot: []string{`l="1"} 2`},
		},
		"a part of a histogram as a counter": {
			sources: []Source{{ID: "dns.a", Text: says("# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n# TYPE ok gauge\nok 1\n")},
				{ID: "dns.b", Text: says("# TYPE h_count counter\nh_count 5\n")}},
			has: []string{`ok{component="dns.a"} 1`},
		},
		"rubbish": {
			sources: []Source{{ID: "dns.a", Text: says("\x00\xff{{{\n")}, {ID: "dns.b", Text: says("ok 1\n")}},
			has:     []string{`ok{component="dns.b"} 1`, `k3m_component_metrics_valid{component="dns.a"} 0`},
		},
		"a failure": {
			sources: []Source{{ID: "dns.a", Up: true, Text: func(context.Context) ([]byte, error) { return nil, errors.New("not now") }}, {ID: "dns.b", Text: says("ok 1\n")}},
			has:     []string{`ok{component="dns.b"} 1`, `k3m_component_metrics_valid{component="dns.a"} 0`, `k3m_component_up{component="dns.a"} 1`},
		},
		"too much": {
			sources: []Source{{ID: "dns.a", Text: says(strings.Repeat("# a comment\n", 300_000))}, {ID: "dns.b", Text: says("ok 1\n")}},
			has:     []string{`ok{component="dns.b"} 1`, `k3m_component_metrics_valid{component="dns.a"} 0`},
		},
		"silence": {
			sources: []Source{{ID: "dns.a", Text: func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, context.Cause(ctx) }}, {ID: "dns.b", Text: says("ok 1\n")}},
			has:     []string{`ok{component="dns.b"} 1`, `k3m_component_metrics_valid{component="dns.a"} 0`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			sources = tt.sources
			answer := httptest.NewRecorder()
			legacyregistry.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
			body, err := io.ReadAll(answer.Result().Body)
			if err != nil || answer.Code != 200 {
				t.Fatalf("%d %v\n%.500s", answer.Code, err, body)
			}
			for _, want := range append(tt.has, "go_goroutines ", "core_sleep_seconds_count 0") {
				if !strings.Contains(string(body), want) {
					t.Errorf("lacks %s", want)
				}
			}
			for _, unwanted := range tt.hasNot {
				if strings.Contains(string(body), unwanted) {
					t.Errorf("has %s", unwanted)
				}
			}
		})
	}
}

// Whatever a component says, a scrape succeeds.
func FuzzMetrics(f *testing.F) {
	for _, seed := range []string{
		"a 1\n", "# TYPE a histogram\na_bucket{le=\"1\"} 1\na_count 1\na_sum 2\n", "# TYPE a summary\na{quantile=\"0.5\"} 1\n",
		"a{component=\"x\",component=\"y\"} 1\n", "# HELP a \\n\n# TYPE a gauge\na{l=\"\\\"\"} NaN 5\n", "a{__name__=\"b\"} 1\n", "# TYPE a untyped\na 1\na_count 1\n",
		"{\"a b\"} 1\n", "# TYPE a gaugehistogram\na_bucket{le=\"x\"} 1\n",
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		registry := prometheus.NewRegistry()
		core := prometheus.NewGauge(prometheus.GaugeOpts{Name: "a_core_gauge", Help: "Of the core."})
		registry.MustRegister(core, &Collector{
			sources: func() []Source { return []Source{{ID: "dns.a", Text: says(one)}, {ID: "dns.b", Text: says(two)}} },
			core:    core, logger: slog.New(slog.DiscardHandler),
		})
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() != "a_core_gauge" && !allOf(family) {
				t.Errorf("%s has a sample without its component", family.GetName())
			}
		}
	})
}

func allOf(family *dto.MetricFamily) bool {
	for _, m := range family.GetMetric() {
		labelled := false
		for _, l := range m.GetLabel() {
			labelled = labelled || l.GetName() == label && strings.HasPrefix(l.GetValue(), "dns.")
		}
		if !labelled {
			return false
		}
	}
	return true
}
