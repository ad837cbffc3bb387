package metricsserver

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/metrics-server/pkg/scraper"
	"sigs.k8s.io/metrics-server/pkg/storage"
)

const (
	// warmupInterval is short beside the 10 to 20 s in which a kubelet measures its node,
	// and long beside what a scrape costs.
	warmupInterval = 2 * time.Second
	// warmupLimit is when a node that gives nothing is left to the ordinary turn.
	warmupLimit = time.Minute
)

// warmup asks the nodes often until there are figures of all: a rate takes two
// measurements, and at the ordinary resolution the second of a node that has just started
// is seen up to two turns late. It needs a timer, since a kubelet doesn't say when it has
// measured anew. The storage takes what both it and the ordinary turn bring, in any order.
type warmup struct {
	nodes   corelisters.NodeLister
	synced  cache.InformerSynced
	scraper scraper.Scraper
	store   storage.Storage
	// interval is warmupInterval but in tests.
	interval time.Duration
}

// run returns when there are figures of every node that is ready, or they are long in
// coming, or ctx ends.
func (w *warmup) run(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, warmupLimit)
	defer cancel()
	if !cache.WaitForCacheSync(ctx.Done(), w.synced) {
		return
	}
	// The server's ordinary turn begins with a scrape at this moment.
	ticker := time.NewTicker(w.interval)
	defer ticker.Stop()
	for !w.done() {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.store.Store(w.scraper.Scrape(ctx))
		}
	}
}

// done says whether there is a node that is ready, and figures of each of those.
func (w *warmup) done() bool {
	nodes, err := w.nodes.List(labels.Everything())
	if err != nil {
		return false
	}
	ready := 0
	for _, node := range nodes {
		if !isReady(node) {
			continue
		}
		ready++
		if figures, err := w.store.GetNodeMetrics(node); err != nil || len(figures) == 0 {
			return false
		}
	}
	return ready > 0
}
