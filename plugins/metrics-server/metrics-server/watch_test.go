package metricsserver

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/metrics-server/pkg/storage"

	"github.com/k3m-io/k3m/plugins/internal/klogs"
)

// health remembers what it was told last.
type health struct{ last string }

func (h *health) Ready()                 { h.last = "ready" }
func (h *health) Degraded(reason string) { h.last = reason }

func nodeLister(t *testing.T, nodes ...*corev1.Node) corelisters.NodeLister {
	t.Helper()
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for _, n := range nodes {
		must(t, indexer.Add(n))
	}
	return corelisters.NewNodeLister(indexer)
}

func node(name string, ready corev1.ConditionStatus) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}
}

func batch(at time.Time, used float64, nodes ...string) *storage.MetricsBatch {
	b := &storage.MetricsBatch{Nodes: map[string]storage.MetricsPoint{}, Pods: map[apitypes.NamespacedName]storage.PodMetricsPoint{}}
	for _, n := range nodes {
		b.Nodes[n] = storage.MetricsPoint{StartTime: at.Add(-time.Hour), Timestamp: at, CumulativeCPUUsed: uint64(used * 1e9), MemoryUsage: 1 << 30}
	}
	return b
}

func TestSilentNodesAreNamed(t *testing.T) {
	h := &health{}
	w := &watch{nodes: nodeLister(t, node("a", "True"), node("b", "True"), node("gone", "False")), host: h, patience: 30 * time.Second}
	now := time.Now()
	w.note(batch(now, 1), now)
	if h.last != "" {
		t.Errorf("it said %q before it serves", h.last)
	}
	w.serving()
	if h.last != "ready" {
		t.Errorf("it serves and says %q", h.last)
	}
	for _, step := range []struct {
		after    time.Duration
		answered []string
		want     string
	}{
		{15 * time.Second, []string{"a"}, "ready"},
		{29 * time.Second, []string{"a"}, "ready"},
		{31 * time.Second, []string{"a"}, ": b"},
		{45 * time.Second, []string{"a", "b"}, "ready"},
		{60 * time.Second, []string{"a"}, "ready"}, // anew
	} {
		w.note(batch(now, 1, step.answered...), now.Add(step.after))
		if !strings.HasSuffix(h.last, step.want) {
			t.Errorf("after %s, answered by %v: %q, want …%q", step.after, step.answered, h.last, step.want)
		}
	}
}

func TestReasonNamesAFewNodes(t *testing.T) {
	h := &health{}
	var nodes []*corev1.Node
	for _, name := range strings.Fields("n1 n2 n3 n4 n5 n6 n7") {
		nodes = append(nodes, node(name, "True"))
	}
	w := &watch{nodes: nodeLister(t, nodes...), host: h}
	w.serving()
	now := time.Now()
	w.note(batch(now, 1), now)
	w.note(batch(now, 1), now.Add(time.Second))
	if !strings.HasSuffix(h.last, "n1, n2, n3, n4, n5 and 2 more") {
		t.Errorf("it says %q", h.last)
	}
}

// script answers with what it was given, one after the other.
type script struct{ batches []*storage.MetricsBatch }

func (s *script) Scrape(context.Context) *storage.MetricsBatch {
	b := s.batches[0]
	s.batches = s.batches[1:]
	return b
}

// The second figure of b is late, and one that says nothing new comes before it.
func TestWarmupEndsWithFiguresOfAllNodes(t *testing.T) {
	nodes := nodeLister(t, node("a", "True"), node("b", "True"), node("c", "Unknown"))
	now := time.Now()
	first, second := batch(now, 1, "a", "b"), batch(now.Add(time.Second), 2, "a")
	second.Nodes["b"] = first.Nodes["b"]
	s := &script{batches: []*storage.MetricsBatch{first, second, batch(now.Add(2*time.Second), 3, "a", "b")}}
	w := &warmup{nodes: nodes, synced: func() bool { return true }, scraper: s, store: storage.NewStorage(15 * time.Second), interval: time.Millisecond}
	w.run(t.Context())
	if len(s.batches) > 0 {
		t.Errorf("it ended with %d scrapes to come", len(s.batches))
	}
	for _, name := range []string{"a", "b"} {
		figures, err := w.store.GetNodeMetrics(node(name, "True"))
		if err != nil || len(figures) != 1 || figures[0].Usage.Cpu().MilliValue() != 1000 {
			t.Errorf("figures of %s: %+v, %v", name, figures, err)
		}
	}
}

func TestWarmupEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &warmup{nodes: nodeLister(t), synced: func() bool { return true }, scraper: &script{}, store: storage.NewStorage(15 * time.Second), interval: time.Millisecond}
	w.run(ctx)
}

func TestMetricsAreItsOwn(t *testing.T) {
	p := &plugin{}
	var out bytes.Buffer
	must(t, p.WriteMetrics(t.Context(), &out))
	if out.Len() > 0 {
		t.Errorf("before Run: %s", out.String())
	}
	must(t, p.exporter.open(15*time.Second))
	storage.NewStorage(15 * time.Second).Store(batch(time.Now(), 1, "a"))
	must(t, p.WriteMetrics(t.Context(), &out))
	if !strings.Contains(out.String(), "metrics_server_storage_points{") {
		t.Errorf("have %s", out.String())
	}
	for line := range strings.Lines(out.String()) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "metrics_server_") {
			t.Errorf("a name of something else's: %s", line)
		}
	}
}

func TestStartIsQuiet(t *testing.T) {
	var out bytes.Buffer
	must(t, klogs.Capture(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Warn}), atEachStart))
	t.Cleanup(func() { must(t, klogs.Capture(hclog.NewNullLogger())) })
	klog.Warning("Skipping API metrics.k8s.io/v1 because it has no resources.")
	klog.Warning("something else")
	klog.Flush()
	if strings.Contains(out.String(), "Skipping") || !strings.Contains(out.String(), "something else") {
		t.Errorf("warned %q", out.String())
	}
}
