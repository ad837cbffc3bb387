// Package componentmetrics puts the metrics of a node's components on the node's /metrics, each
// sample with its component's ID, and beside them what the core itself knows of each:
//
//	k3m_component_up                    whether it is ready
//	k3m_component_restarts_total        its processes after the first
//	k3m_component_memory_bytes          the memory of its processes (PSS)
//	k3m_component_cpu_seconds_total     the processor time of its processes
//	k3m_component_metrics_valid         whether its own metrics could be read, where it has any
//
// Kubernetes' parts in this process share one registry, which the kubelet serves at /metrics (and
// the API server too, at its own). One sample in it that contradicts another makes the answer an
// error as a whole, so nothing that a component says gets there unchecked: see check.go.
package componentmetrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/k3m-io/k3m/sdk"
)

// askTimeout is how long a component may take to tell its metrics. Scrapers give up after 10 s by
// default, and all components are asked at once.
const askTimeout = 2 * time.Second

// Source is a component whose metrics are served.
type Source struct {
	ID       string
	Up       bool
	Restarts int
	// MemoryBytes and CPU are what its processes use; both 0 where that is not known.
	MemoryBytes int64
	CPU         time.Duration
	// Text asks the component for its metrics in Prometheus' text format; nil when it has
	// none, or does not run.
	Text func(ctx context.Context) ([]byte, error)
}

// Register has Kubernetes' registry of this process serve the components' metrics. sources is
// called at each scrape. Call it once in a process.
func Register(sources func() []Source, logger *slog.Logger) error {
	registry := legacyregistry.Registerer()
	described, ok := registry.(prometheus.Collector)
	if !ok {
		return errors.New("serve the components' metrics: Kubernetes' registry does not tell what it holds")
	}
	if err := registry.Register(&Collector{sources: sources, core: described, logger: logger}); err != nil {
		return fmt.Errorf("serve the components' metrics: %w", err)
	}
	return nil
}

// Collector collects the metrics of components. It is unchecked: what there is, is known only when
// they are asked.
type Collector struct {
	sources func() []Source
	core    prometheus.Collector // describes what else is in the registry
	logger  *slog.Logger

	mu      sync.Mutex // one scrape at a time
	refused map[string]string
}

// Describe names nothing, which makes the collector an unchecked one.
func (c *Collector) Describe(chan<- *prometheus.Desc) {}

// Collect asks all components at once.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sources := c.sources()
	families, errs := make([]map[string]*dto.MetricFamily, len(sources)), make([]error, len(sources))
	var asked sync.WaitGroup
	for i, s := range sources {
		if s.Text != nil {
			asked.Go(func() { families[i], errs[i] = ask(s) })
		}
	}
	asked.Wait()
	reserved := namesOf(c.core)
	checked := newCheck(reserved)
	for i, s := range sources {
		own(s, errs[i], out)
		if errs[i] == nil {
			checked.add(s.ID, families[i])
		}
		c.note(s, errs[i])
	}
	for _, m := range checked.metrics() {
		out <- m
	}
}

func ask(s Source) (families map[string]*dto.MetricFamily, err error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), askTimeout, fmt.Errorf("it did not tell its metrics within %s", askTimeout))
	defer cancel()
	text, err := s.Text(ctx)
	if err != nil {
		return nil, err
	}
	if len(text) > sdk.MaxMetricsBytes {
		return nil, fmt.Errorf("its metrics are larger than %d bytes", sdk.MaxMetricsBytes)
	}
	return parse(text)
}

// note logs why a component's metrics are missing, once.
func (c *Collector) note(s Source, err error) {
	if c.refused == nil {
		c.refused = map[string]string{}
	}
	if err == nil {
		delete(c.refused, s.ID)
		return
	}
	if c.refused[s.ID] != err.Error() {
		c.refused[s.ID] = err.Error()
		c.logger.Warn("a component's metrics can't be served", "component", s.ID, "error", err)
	}
}

var (
	upDesc       = prometheus.NewDesc("k3m_component_up", "Whether the component is ready.", []string{label}, nil)
	restartsDesc = prometheus.NewDesc("k3m_component_restarts_total", "Processes of the component after the first.", []string{label}, nil)
	memoryDesc   = prometheus.NewDesc("k3m_component_memory_bytes", "Memory of the component's processes, with a share of what they share.", []string{label}, nil)
	cpuDesc      = prometheus.NewDesc("k3m_component_cpu_seconds_total", "Processor time of the component's processes.", []string{label}, nil)
	validDesc    = prometheus.NewDesc("k3m_component_metrics_valid", "Whether the component's own metrics could be read.", []string{label}, nil)
)

// own are the core's own metrics of a component.
func own(s Source, err error, out chan<- prometheus.Metric) {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	out <- prometheus.MustNewConstMetric(upDesc, gauge, one(s.Up), s.ID)
	out <- prometheus.MustNewConstMetric(restartsDesc, counter, float64(s.Restarts), s.ID)
	if s.MemoryBytes > 0 {
		out <- prometheus.MustNewConstMetric(memoryDesc, gauge, float64(s.MemoryBytes), s.ID)
	}
	if s.CPU > 0 {
		out <- prometheus.MustNewConstMetric(cpuDesc, counter, s.CPU.Seconds(), s.ID)
	}
	if s.Text != nil {
		out <- prometheus.MustNewConstMetric(validDesc, gauge, one(err == nil), s.ID)
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
