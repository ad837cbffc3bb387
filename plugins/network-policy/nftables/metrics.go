package nftables

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// metrics are what the component tells of itself. They may be read while they change.
type metrics struct {
	mu                                 sync.Mutex
	policies, selecting, pods, unknown int
	tooLarge                           int
	size                               size
	syncs, failures, operations        uint64
	seconds, last                      float64
}

// synced takes in a transaction.
func (m *metrics) synced(e *engine, operations int, took time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if operations > 0 {
		m.syncs++
		m.operations += uint64(operations)
		m.last = took.Seconds()
		m.seconds += m.last
	}
	if err != nil {
		m.failures++
		return
	}
	m.policies, m.selecting, m.pods = len(e.policies), 0, 0
	for _, p := range e.policies {
		if len(p.selected) > 0 {
			m.selecting++
		}
	}
	for _, chains := range e.held {
		if *chains != [2]*chain{} {
			m.pods++
		}
	}
	m.unknown, m.tooLarge = len(e.unknown()), e.tooLarge()
	m.size = e.size()
}

// write writes them in Prometheus' text format.
func (m *metrics) write(w io.Writer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	put := func(name, kind, help string, value any) {
		if err == nil {
			name = "k3m_network_policy_" + name
			_, err = fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %v\n", name, help, name, kind, name, value)
		}
	}
	put("policies", "gauge", "NetworkPolicies of the cluster.", m.policies)
	put("policies_selecting", "gauge", "NetworkPolicies that select a pod of this node.", m.selecting)
	put("policies_too_large", "gauge", "NetworkPolicies that allow nobody since they are too large.", m.tooLarge)
	put("addresses_isolated", "gauge", "Addresses of pods of this node that a NetworkPolicy selects.", m.pods)
	put("addresses_unknown", "gauge", "Addresses handed out to pods that are not known yet.", m.unknown)
	put("chains", "gauge", "Chains of nftables.", m.size.chains)
	put("sets", "gauge", "Sets and maps of nftables.", m.size.sets)
	put("elements", "gauge", "Elements of sets and maps.", m.size.elements)
	put("syncs_total", "counter", "Transactions.", m.syncs)
	put("sync_failures_total", "counter", "Transactions that the kernel did not take.", m.failures)
	put("sync_operations_total", "counter", "Operations of all transactions.", m.operations)
	put("sync_seconds_total", "counter", "Time spent on transactions.", m.seconds)
	put("sync_last_seconds", "gauge", "Time that the last transaction took.", m.last)
	return err
}
