package metricsserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"sigs.k8s.io/metrics-server/pkg/scraper"
	"sigs.k8s.io/metrics-server/pkg/storage"
)

// maxNamed is how many nodes a reason names.
const maxNamed = 5

// reporter is the part of sdk.Host that health goes to.
type reporter interface {
	Ready()
	Degraded(reason string)
}

// watch is a scraper that tells the host when nodes that are ready don't answer. Its
// methods may be called by several goroutines at once.
type watch struct {
	scraper.Scraper
	nodes corelisters.NodeLister
	host  reporter
	// patience is how long a node may be silent.
	patience time.Duration

	mu      sync.Mutex
	serves  bool
	silence map[string]time.Time // since when a node gives nothing
}

// serving says that the API is served: from now on the host is told.
func (w *watch) serving() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serves = true
	w.report(time.Now())
}

// Scrape implements scraper.Scraper.
func (w *watch) Scrape(ctx context.Context) *storage.MetricsBatch {
	batch := w.Scraper.Scrape(ctx)
	if ctx.Err() == nil {
		w.note(batch, time.Now())
	}
	return batch
}

// note takes down who answered.
func (w *watch) note(batch *storage.MetricsBatch, now time.Time) {
	nodes, err := w.nodes.List(labels.Everything())
	if err != nil {
		return // the cache's; there is no such error
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	silence := map[string]time.Time{}
	for _, node := range nodes {
		if _, answered := batch.Nodes[node.Name]; answered || !isReady(node) {
			continue
		}
		silence[node.Name] = now
		if since, known := w.silence[node.Name]; known {
			silence[node.Name] = since
		}
	}
	w.silence = silence
	w.report(now)
}

func (w *watch) report(now time.Time) {
	if !w.serves {
		return
	}
	var silent []string
	for name, since := range w.silence {
		if now.Sub(since) > w.patience {
			silent = append(silent, name)
		}
	}
	if len(silent) == 0 {
		w.host.Ready()
		return
	}
	slices.Sort(silent)
	names := strings.Join(silent[:min(len(silent), maxNamed)], ", ")
	if more := len(silent) - maxNamed; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	w.host.Degraded("the kubelets of these nodes give no metrics, the log says why: " + names)
}
