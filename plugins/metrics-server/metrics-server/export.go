package metricsserver

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
	"k8s.io/component-base/metrics"
	upstream "sigs.k8s.io/metrics-server/pkg/server"
)

// exporter gathers metrics-server's own metrics. Those of the API machinery and of client-go
// in this process have the names that the node's own have, and are left out.
type exporter struct {
	mu       sync.Mutex
	registry metrics.KubeRegistry
}

// open registers the metrics anew.
func (e *exporter) open(resolution time.Duration) error {
	registry := metrics.NewKubeRegistry()
	if err := upstream.RegisterMetrics(registry, resolution); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.registry = registry
	return nil
}

// WriteMetrics implements sdk.MetricsWriter.
func (p *plugin) WriteMetrics(_ context.Context, w io.Writer) error {
	p.exporter.mu.Lock()
	registry := p.exporter.registry
	p.exporter.mu.Unlock()
	if registry == nil {
		return nil // it has not started
	}
	families, err := registry.Gather()
	if err != nil {
		return fmt.Errorf("gather metrics: %w", err)
	}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "metrics_server_") {
			continue
		}
		if _, err := expfmt.MetricFamilyToText(w, family); err != nil {
			return fmt.Errorf("write metrics: %w", err)
		}
	}
	return nil
}
