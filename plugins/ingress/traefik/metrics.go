package traefik

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/traefik/traefik/v2/pkg/metrics"

	"github.com/k3m-io/k3m/sdk"
)

// exporter writes Traefik's figures, which are global to the process.
type exporter struct{ running atomic.Bool }

func (e *exporter) open() { e.running.Store(true) }

// WriteMetrics implements sdk.MetricsWriter: what Traefik counts, without what every Go process does. With thousands of
// Services there is more than a node takes: then the largest families, which are those by Service, are left out.
func (p *plugin) WriteMetrics(ctx context.Context, w io.Writer) error {
	if !p.exporter.running.Load() {
		return errors.New("the proxy has not started")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	var answer response
	metrics.PrometheusHandler().ServeHTTP(&answer, request)
	if answer.status >= http.StatusBadRequest {
		return fmt.Errorf("collect Traefik's metrics: %.200s", answer.Bytes())
	}
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(&answer.Buffer)
	if err != nil {
		return fmt.Errorf("read Traefik's metrics: %w", err)
	}
	return writeFamilies(w, families, sdk.MaxMetricsBytes)
}

func writeFamilies(w io.Writer, families map[string]*dto.MetricFamily, room int) error {
	var texts [][]byte
	for name, family := range families {
		if !strings.HasPrefix(name, "traefik_") {
			continue
		}
		var b bytes.Buffer
		if _, err := expfmt.MetricFamilyToText(&b, family); err != nil {
			return fmt.Errorf("write metric %s: %w", name, err)
		}
		texts = append(texts, b.Bytes())
	}
	slices.SortFunc(texts, func(a, b []byte) int { return cmp.Or(cmp.Compare(len(a), len(b)), bytes.Compare(a, b)) })
	for _, text := range texts {
		if room -= len(text); room < 0 {
			return nil
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// response is an http.ResponseWriter in memory.
type response struct {
	bytes.Buffer
	header http.Header
	status int
}

// Header implements http.ResponseWriter.
func (r *response) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

// WriteHeader implements http.ResponseWriter.
func (r *response) WriteHeader(status int) { r.status = status }
