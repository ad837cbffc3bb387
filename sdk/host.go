package sdk

import (
	"encoding/json"
	"net/netip"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/k3m-io/k3m/sdk/internal/text"
	"github.com/k3m-io/k3m/sdk/proto/pluginv1"
)

// Host is what a component is given while it runs: who and where it is, and the way to
// say how it fares. All methods may be called by several goroutines at once; the
// reports return at once whatever the host process does, and are dropped after Run has
// returned. In Cleanup there is no one to report to, and reports are dropped too.
type Host struct {
	logger     hclog.Logger
	facts      Facts
	kubeconfig string
	stateDir   string
	config     json.RawMessage

	servingCert, servingKey string

	mu     sync.Mutex
	closed bool
	health string             // the last health report, to send only changes
	queue  []*pluginv1.Report // at most one of each sort, in the order of their making
	wake   chan struct{}      // holds one token when queue is not empty
}

// Logger writes structured records that k3m prefixes with the component's ID. Its level
// is the one that the host asked for.
func (h *Host) Logger() hclog.Logger { return h.logger }

// Facts returns what is known of the node and the cluster.
func (h *Host) Facts() Facts {
	f := h.facts
	f.NodeIPs = slices.Clone(f.NodeIPs)
	f.ClusterCIDRs = slices.Clone(f.ClusterCIDRs)
	f.ServiceCIDRs = slices.Clone(f.ServiceCIDRs)
	f.ClusterDNS = slices.Clone(f.ClusterDNS)
	f.PodGateways = slices.Clone(f.PodGateways)
	return f
}

// Kubeconfig is the path of a kubeconfig for the component's own identity, which has
// exactly the rights of Info.Rules. It is empty for a component that does not require
// the API, and in Cleanup. The credentials in it may be renewed in place: read it again
// when the API says 401, or use a client that does.
func (h *Host) Kubeconfig() string { return h.kubeconfig }

// ServingCertificate returns the paths of a TLS certificate and its key, PEM, for the
// names <name>.<namespace>.svc and its shorter and longer forms of Info.Services, signed
// by the cluster's server CA. Both are empty unless Info.ServingCertificate asked for
// them, and in Cleanup. They may be renewed in place.
func (h *Host) ServingCertificate() (cert, key string) { return h.servingCert, h.servingKey }

// StateDir is a directory of the component's own that outlives the process.
func (h *Host) StateDir() string { return h.stateDir }

// Config is the component's block of the configuration as JSON; "{}" when there is none.
func (h *Host) Config() json.RawMessage { return slices.Clone(h.config) }

// DecodeConfig fills v, a pointer to a struct that may hold defaults, from the
// configuration. It is strict: a key that v has no field for is an error that names the
// key and the nearest one that exists. Keys are matched by case.
func (h *Host) DecodeConfig(v any) error { return decodeStrict(h.config, v) }

// Ready says that the component serves. Calling it again changes nothing; calling it
// after Degraded says that the component has recovered.
func (h *Host) Ready() {
	h.reportHealth("ready", &pluginv1.Report{Report: &pluginv1.Report_Ready{Ready: &pluginv1.Ready{}}})
}

// Degraded says why the component can't do its work at present, in one sentence for the
// operator. The component goes on; when it can't, Run returns an error instead.
func (h *Host) Degraded(reason string) {
	reason = text.Clean(reason, maxReason)
	h.reportHealth("degraded: "+reason, &pluginv1.Report{Report: &pluginv1.Report_Degraded{
		Degraded: &pluginv1.Degraded{Reason: reason}}})
}

// RuntimeReady is a runtime's own report: the CRI endpoint, "unix:///path", which serves
// from now on. A runtime calls it before Ready.
func (h *Host) RuntimeReady(endpoint string) {
	h.report(&pluginv1.Report{Report: &pluginv1.Report_RuntimeReady{
		RuntimeReady: &pluginv1.RuntimeReady{Endpoint: endpoint}}})
}

// NetworkReady is a cni component's own report: this node's addresses on the pod
// network, which can be bound from now on. A cni component calls it before Ready.
func (h *Host) NetworkReady(gateways []netip.Addr) {
	h.report(&pluginv1.Report{Report: &pluginv1.Report_NetworkReady{
		NetworkReady: &pluginv1.NetworkReady{Gateways: text.Strings(gateways)}}})
}

// Serve says where the component serves the Services of its Info from now on, before or
// after Ready; it replaces what it said before, and Serve() takes all back. A server keeps
// an EndpointSlice for each, names this node in it, and withdraws it when the component
// or the node is gone.
func (h *Host) Serve(endpoints ...Endpoint) {
	serving := &pluginv1.Serving{}
	for _, e := range endpoints {
		w := &pluginv1.Endpoint{Service: e.Service, Addresses: text.Strings(e.Addresses)}
		for _, p := range e.Ports {
			w.Ports = append(w.Ports, &pluginv1.EndpointPort{
				Name: p.Name, Protocol: string(p.Protocol), Port: uint32(p.Port), AppProtocol: p.AppProtocol})
		}
		serving.Endpoints = append(serving.Endpoints, w)
	}
	h.report(&pluginv1.Report{Report: &pluginv1.Report_Serving{Serving: serving}})
}

// Own says what the objects are that the component's Info declares (see Info.Declares), as
// JSON; it replaces what was said before, by an earlier process too. A server keeps them
// applied as long as the component is selected, whether it runs or not; those that are left
// out are removed, and until Own is called the first time, all stays as it is. Of several
// nodes, the leading server's component has the say.
func (h *Host) Own(objects ...json.RawMessage) {
	owning := &pluginv1.Owning{}
	for _, o := range objects {
		owning.Objects = append(owning.Objects, slices.Clone(o))
	}
	h.report(&pluginv1.Report{Report: &pluginv1.Report_Owning{Owning: owning}})
}

func (h *Host) reportHealth(health string, r *pluginv1.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.health == health {
		return
	}
	h.health = health
	h.enqueue(r)
}

func (h *Host) report(r *pluginv1.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.enqueue(r)
}

// enqueue replaces a report of the same sort that was not sent yet, so that the queue
// stays short without ever making a caller wait.
func (h *Host) enqueue(r *pluginv1.Report) {
	if h.closed {
		return
	}
	h.queue = append(slices.DeleteFunc(h.queue, func(old *pluginv1.Report) bool {
		return reportSort(old) == reportSort(r)
	}), r)
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// take empties the queue.
func (h *Host) take() []*pluginv1.Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queue
	h.queue = nil
	return q
}

// close drops what is reported from now on.
func (h *Host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}

func reportSort(r *pluginv1.Report) string {
	switch r.GetReport().(type) {
	case *pluginv1.Report_RuntimeReady:
		return "runtime"
	case *pluginv1.Report_NetworkReady:
		return "network"
	case *pluginv1.Report_Serving:
		return "serving"
	case *pluginv1.Report_Owning:
		return "owning"
	default:
		return "health"
	}
}
