package nodeip

import (
	"fmt"
	"io"
	"sync/atomic"
)

// metrics are what WriteMetrics tells.
type metrics struct {
	services, pending, conflicts atomic.Int64
	writes, failures             atomic.Int64
	leading                      atomic.Int64
}

// count takes over what was decided.
func (m *metrics) count(verdicts []verdict) {
	var services, pending, conflicts int64
	for _, v := range verdicts {
		if !v.service.mine {
			continue
		}
		services++
		if len(v.ingress) == 0 {
			pending++
		}
		for _, b := range v.blocked {
			if b.holder != "" {
				conflicts++
			}
		}
	}
	m.services.Store(services)
	m.pending.Store(pending)
	m.conflicts.Store(conflicts)
}

func (m *metrics) write(w io.Writer) error {
	for _, metric := range []struct {
		name, kind, help string
		value            *atomic.Int64
	}{
		{"services", "gauge", "Services of type LoadBalancer that are the component's.", &m.services},
		{"services_pending", "gauge", "Those of them without an address.", &m.pending},
		{"conflicts", "gauge", "Addresses of nodes that a Service does not get because somebody holds a port.", &m.conflicts},
		{"status_writes_total", "counter", "Statuses of Services that were written.", &m.writes},
		{"failures_total", "counter", "Times that the API refused or did not answer a write.", &m.failures},
		{"leading", "gauge", "1 if this is the server whose component writes.", &m.leading},
	} {
		if _, err := fmt.Fprintf(w, "# HELP k3m_servicelb_%[1]s %[2]s\n# TYPE k3m_servicelb_%[1]s %[3]s\nk3m_servicelb_%[1]s %[4]d\n",
			metric.name, metric.help, metric.kind, metric.value.Load()); err != nil {
			return err
		}
	}
	return nil
}
