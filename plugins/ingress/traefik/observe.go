package traefik

import (
	"context"
	"errors"
	"fmt"

	"github.com/traefik/traefik/v2/pkg/config/static"
	"github.com/traefik/traefik/v2/pkg/metrics"
	"github.com/traefik/traefik/v2/pkg/tracing"
	"github.com/traefik/traefik/v2/pkg/types"
)

// registries are where Traefik counts: for the node's own metrics always, and elsewhere by the raw options.
func registries(m *types.Metrics) []metrics.Registry {
	ctx := context.Background() // for its log alone; the exporters end with the server
	all := []metrics.Registry{metrics.RegisterPrometheus(ctx, m.Prometheus)}
	if m.Datadog != nil {
		all = append(all, metrics.RegisterDatadog(ctx, m.Datadog))
	}
	if m.StatsD != nil {
		all = append(all, metrics.RegisterStatsd(ctx, m.StatsD))
	}
	if m.InfluxDB != nil {
		all = append(all, metrics.RegisterInfluxDB(ctx, m.InfluxDB))
	}
	if m.InfluxDB2 != nil {
		if r := metrics.RegisterInfluxDB2(ctx, m.InfluxDB2); r != nil {
			all = append(all, r)
		}
	}
	return all
}

// newTracing is where Traefik's traces go; nil without the raw option.
func newTracing(t *static.Tracing) (*tracing.Tracing, error) {
	if t == nil {
		return nil, nil
	}
	var backends []tracing.Backend
	if t.Jaeger != nil {
		backends = append(backends, t.Jaeger)
	}
	if t.Zipkin != nil {
		backends = append(backends, t.Zipkin)
	}
	if t.Datadog != nil {
		backends = append(backends, t.Datadog)
	}
	if t.Instana != nil {
		backends = append(backends, t.Instana)
	}
	if t.Haystack != nil {
		backends = append(backends, t.Haystack)
	}
	if t.Elastic != nil {
		backends = append(backends, t.Elastic)
	}
	if len(backends) != 1 {
		return nil, errors.New("static.tracing: name exactly one of jaeger, zipkin, datadog, instana, haystack and elastic")
	}
	tracer, err := tracing.NewTracing(t.ServiceName, t.SpanNameLimit, backends[0])
	if err != nil {
		return nil, fmt.Errorf("start tracing: %w", err)
	}
	return tracer, nil
}
