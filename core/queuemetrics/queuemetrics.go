// Package queuemetrics gives Kubernetes' work queues the metrics that they have upstream, without
// the timer that each queue has there.
//
// With a metrics provider, every named work queue of client-go has a goroutine that wakes up each
// 500 ms to set two gauges: how long its unfinished items have been worked on. A k3m server has some
// hundred queues, so an idle one would wake up two hundred times a second to set gauges that are
// read once a minute, if ever. Here both are worked out when somebody reads them, and the goroutine
// ends at its first turn.
//
// To import the package is enough. Only the first provider that a process sets counts, and that of
// k8s.io/component-base sets itself when it is initialised. Go initialises packages in the order of
// their import paths as soon as what they import is ready (see "Package initialization" in the
// language's specification), and this package imports nothing that the other doesn't: so it is first.
// A test holds that.
package queuemetrics

import (
	"runtime"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// Names, help texts and buckets are those of k8s.io/component-base/metrics/prometheus/workqueue.
const subsystem = "workqueue"

var (
	byName  = []string{"name"}
	buckets = metrics.ExponentialBuckets(10e-9, 10, 10)

	depth = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: subsystem, Name: "depth", StabilityLevel: metrics.BETA,
		Help: "Current depth of workqueue",
	}, byName)
	adds = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: subsystem, Name: "adds_total", StabilityLevel: metrics.BETA,
		Help: "Total number of adds handled by workqueue",
	}, byName)
	latency = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Subsystem: subsystem, Name: "queue_duration_seconds", StabilityLevel: metrics.BETA,
		Help: "How long in seconds an item stays in workqueue before being requested.", Buckets: buckets,
	}, byName)
	workDuration = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Subsystem: subsystem, Name: "work_duration_seconds", StabilityLevel: metrics.BETA,
		Help: "How long in seconds processing an item from workqueue takes.", Buckets: buckets,
	}, byName)
	retries = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: subsystem, Name: "retries_total", StabilityLevel: metrics.BETA,
		Help: "Total number of retries handled by workqueue",
	}, byName)
)

func init() { workqueue.SetProvider(provider{}) }

// provider makes the metrics of a queue. Its methods may be called at any time, by many at once.
type provider struct{}

func (provider) NewDepthMetric(name string) workqueue.GaugeMetric {
	register()
	return queueDepth{depth.WithLabelValues(name), unfinished.of(name)}
}

func (provider) NewAddsMetric(name string) workqueue.CounterMetric {
	register()
	return adds.WithLabelValues(name)
}

func (provider) NewLatencyMetric(name string) workqueue.HistogramMetric {
	register()
	return latency.WithLabelValues(name)
}

func (provider) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	register()
	return finished{workDuration.WithLabelValues(name), unfinished.of(name)}
}

func (provider) NewUnfinishedWorkSecondsMetric(string) workqueue.SettableGaugeMetric {
	return endTimer{}
}

func (provider) NewLongestRunningProcessorSecondsMetric(string) workqueue.SettableGaugeMetric {
	return endTimer{}
}

func (provider) NewRetriesMetric(name string) workqueue.CounterMetric {
	register()
	return retries.WithLabelValues(name)
}

// register is called when the first queue is made, which is after feature gates are set: they say
// how histograms are kept.
func register() {
	registerOnce.Do(func() {
		for _, m := range []metrics.Registerable{depth, adds, latency, workDuration, retries} {
			legacyregistry.MustRegister(m)
		}
		legacyregistry.CustomMustRegister(unfinished)
	})
}

// endTimer is the gauge that a queue's timer sets first. The timer's goroutine does nothing else, and
// everything that it holds is given back by deferred calls, which Goexit runs.
type endTimer struct{}

// Set ends the calling goroutine.
func (endTimer) Set(float64) { runtime.Goexit() }
