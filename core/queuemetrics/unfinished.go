package queuemetrics

import (
	"math"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics"
)

var registerOnce sync.Once

// unfinished knows what all queues work on.
var unfinished = &collector{queues: map[string]*work{}}

// work is what the queues of one name work on now.
type work struct {
	mu sync.Mutex
	// started holds a time for each item in work. Items are few: as many as a controller has workers.
	started []time.Time
}

func (w *work) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started = append(w.started, time.Now())
}

// finish forgets the item that was started so long ago. The queue doesn't say which item it is, but
// its own clock was read right after start's: that of the nearest time is it, or one that can't be
// told from it.
func (w *work) finish(seconds float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := time.Now().Add(-time.Duration(seconds * float64(time.Second)))
	nearest, least := -1, time.Duration(math.MaxInt64)
	for i, t := range w.started {
		if d := at.Sub(t).Abs(); d < least {
			nearest, least = i, d
		}
	}
	if nearest >= 0 {
		w.started = slices.Delete(w.started, nearest, nearest+1)
	}
}

// ages gives the sum of the ages of all items in work and the greatest, in seconds.
func (w *work) ages() (sum, oldest float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.started {
		age := time.Since(t).Seconds()
		sum += age
		oldest = max(oldest, age)
	}
	return sum, oldest
}

// queueDepth is the gauge of waiting items. A queue lowers it exactly when it hands an item to a
// worker.
type queueDepth struct {
	workqueue.GaugeMetric
	work *work
}

func (d queueDepth) Dec() {
	d.GaugeMetric.Dec()
	d.work.start()
}

// finished is the histogram that a queue feeds exactly when a worker has done an item.
type finished struct {
	workqueue.HistogramMetric
	work *work
}

func (f finished) Observe(seconds float64) {
	f.HistogramMetric.Observe(seconds)
	f.work.finish(seconds)
}

var (
	unfinishedDesc = metrics.NewDesc("workqueue_unfinished_work_seconds",
		"How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large "+
			"values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.",
		byName, nil, metrics.BETA, "")
	longestDesc = metrics.NewDesc("workqueue_longest_running_processor_seconds",
		"How many seconds has the longest running processor for workqueue been running.",
		byName, nil, metrics.BETA, "")
)

// collector works out two gauges for each queue whenever metrics are read.
type collector struct {
	metrics.BaseStableCollector
	mu     sync.Mutex
	queues map[string]*work
}

// of gives the work of the queues that share a name.
func (c *collector) of(name string) *work {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.queues[name]
	if w == nil {
		w = &work{}
		c.queues[name] = w
	}
	return w
}

// DescribeWithStability implements metrics.StableCollector.
func (c *collector) DescribeWithStability(descs chan<- *metrics.Desc) {
	descs <- unfinishedDesc
	descs <- longestDesc
}

// CollectWithStability implements metrics.StableCollector.
func (c *collector) CollectWithStability(values chan<- metrics.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, w := range c.queues {
		sum, oldest := w.ages()
		values <- metrics.NewLazyConstMetric(unfinishedDesc, metrics.GaugeValue, sum, name)
		values <- metrics.NewLazyConstMetric(longestDesc, metrics.GaugeValue, oldest, name)
	}
}
