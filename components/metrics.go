package components

import (
	"context"

	"github.com/k3m-io/k3m/sdk"
)

// Metrics returns a function that asks a component for its metrics, in Prometheus' text format,
// which nobody has checked; nil when it has none or its Run does not go on. The function may be
// called at any time; once the process is gone it fails.
func (s *Supervisor) Metrics(id string) func(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.components {
		if c.id == id && c.process != nil && c.info.Has(sdk.AbilityMetrics) {
			return c.process.Metrics
		}
	}
	return nil
}

// works notes whose Run goes on; nil: nobody's, and so nobody serves.
func (c *component) works(p *process) {
	c.sup.mu.Lock()
	defer c.sup.mu.Unlock()
	c.process = p
	if p == nil {
		c.served = nil
	}
}
