package coredns

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	corednsplugin "github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/k3m-io/k3m/sdk"
)

// setupPrometheus is CoreDNS's prometheus plugin without its listener: it counts, and
// WriteMetrics tells.
func setupPrometheus(c *caddy.Controller) error {
	m := metrics.New("")
	for _, zone := range corednsplugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys) {
		m.AddZone(zone)
	}
	dnsserver.GetConfig(c).AddPlugin(func(next corednsplugin.Handler) corednsplugin.Handler {
		m.Next = next
		return m
	})
	return nil
}

// WriteMetrics implements sdk.MetricsWriter: what CoreDNS's plugins count. The process's
// own figures are the node's to tell.
func (*plugin) WriteMetrics(_ context.Context, w io.Writer) error {
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		return fmt.Errorf("gather the metrics of CoreDNS: %w", err)
	}
	bounded := &boundedWriter{to: w, left: sdk.MaxMetricsBytes}
	buffered := bufio.NewWriter(bounded)
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "coredns_") {
			continue
		}
		if _, err := expfmt.MetricFamilyToText(buffered, family); err != nil {
			return fmt.Errorf("write the metrics of CoreDNS: %w", err)
		}
	}
	return buffered.Flush()
}

// boundedWriter refuses more than left bytes.
type boundedWriter struct {
	to   io.Writer
	left int
}

func (b *boundedWriter) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, fmt.Errorf("the metrics are larger than %d bytes", sdk.MaxMetricsBytes)
	}
	b.left -= len(p)
	return b.to.Write(p)
}
