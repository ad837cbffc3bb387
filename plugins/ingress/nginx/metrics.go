package nginx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
)

// metrics are what WriteMetrics tells: the component's own counters, by ingress-nginx's
// names where it has the same, and what nginx says of itself.
type metrics struct {
	reloads, failures, refusals, deaths, ingresses, confBytes atomic.Int64
	// lastGood is 1 if the last reload was; lastAt is its time, in Unix seconds; lastMillis
	// how long it took, from the change to new workers.
	lastGood, lastAt, lastMillis atomic.Int64
	// ask asks nginx; nil as long as there is none.
	ask atomic.Pointer[func(ctx context.Context, path string) (string, error)]
}

const metricPrefix = "nginx_ingress_controller_"

// write writes all. Without an nginx that answers, its own are left out.
func (m *metrics) write(ctx context.Context, w io.Writer) error {
	var b strings.Builder
	metric := func(name, kind, help, format string, values ...any) {
		fmt.Fprintf(&b, "# HELP %[1]s%[2]s %[3]s\n# TYPE %[1]s%[2]s %[4]s\n", metricPrefix, name, help, kind)
		fmt.Fprintf(&b, format, values...)
	}
	for _, one := range []struct {
		name, kind, help string
		value            int64
	}{
		{"success", "counter", "Times that nginx took up a new configuration.", m.reloads.Load()},
		{"errors", "counter", "Times that nginx did not take up a new configuration.", m.failures.Load()},
		{"check_errors", "counter", "Times that nginx refused a configuration when asked.", m.refusals.Load()},
		{"nginx_deaths_total", "counter", "Times that nginx ended and was started again.", m.deaths.Load()},
		{"config_last_reload_successful", "gauge", "1 if the last reload was successful.", m.lastGood.Load()},
		{"config_last_reload_successful_timestamp_seconds", "gauge", "When the last successful reload was.", m.lastAt.Load()},
		{"config_last_reload_milliseconds", "gauge", "How long the last reload took, from the first change on.", m.lastMillis.Load()},
		{"config_bytes", "gauge", "The size of nginx's configuration.", m.confBytes.Load()},
		{"ingresses", "gauge", "Ingresses that are the component's.", m.ingresses.Load()},
	} {
		metric(one.name, one.kind, one.help, "%s%s %d\n", metricPrefix, one.name, one.value)
	}
	if ask := m.ask.Load(); ask != nil {
		if text, err := (*ask)(ctx, "/status"); err == nil {
			if s, err := parseStatus(text); err == nil {
				metric("nginx_process_connections", "gauge", "Connections of clients, by state.",
					"%[1]snginx_process_connections{state=\"active\"} %[2]d\n%[1]snginx_process_connections{state=\"reading\"} %[3]d\n"+
						"%[1]snginx_process_connections{state=\"writing\"} %[4]d\n%[1]snginx_process_connections{state=\"waiting\"} %[5]d\n",
					metricPrefix, s.active, s.reading, s.writing, s.waiting)
				metric("nginx_process_connections_total", "counter", "Connections of clients since nginx was started, by state.",
					"%[1]snginx_process_connections_total{state=\"accepted\"} %[2]d\n%[1]snginx_process_connections_total{state=\"handled\"} %[3]d\n",
					metricPrefix, s.accepted, s.handled)
				metric("nginx_process_requests_total", "counter", "Requests since nginx was started.",
					"%[1]snginx_process_requests_total %[2]d\n", metricPrefix, s.requests)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// status is what nginx's stub_status says.
type status struct {
	active, accepted, handled, requests, reading, writing, waiting uint64
}

// parseStatus reads the text of stub_status.
func parseStatus(text string) (status, error) {
	var s status
	// "Active connections: 1 server accepts handled requests 5 5 9 Reading: 0 Writing: 1 Waiting: 0"
	fields := strings.Fields(text)
	if len(fields) != 16 || fields[0] != "Active" {
		return s, errors.New("this is not what stub_status says")
	}
	for at, into := range map[int]*uint64{2: &s.active, 7: &s.accepted, 8: &s.handled, 9: &s.requests,
		11: &s.reading, 13: &s.writing, 15: &s.waiting} {
		var err error
		if *into, err = strconv.ParseUint(fields[at], 10, 64); err != nil {
			return s, fmt.Errorf("read stub_status: %w", err)
		}
	}
	return s, nil
}
