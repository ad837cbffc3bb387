package nodeip

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk"
	"k8s.io/apimachinery/pkg/types"
)

// id is the component's.
const id = "servicelb.nodeip"

// version is the component's own: no upstream project stands behind it.
const version = "1.0.0"

// New returns the component.
func New() sdk.Plugin { return &plugin{} }

type plugin struct{ metrics metrics }

var (
	_ sdk.Plugin          = (*plugin)(nil)
	_ sdk.ConfigValidator = (*plugin)(nil)
	_ sdk.MetricsWriter   = (*plugin)(nil)
)

// Info implements sdk.Plugin. The component touches nothing but the API: it has a user id
// of its own and no capability.
func (*plugin) Info() sdk.Info {
	read := []string{"list", "watch"}
	return sdk.Info{
		Kind:     "servicelb",
		Name:     "nodeip",
		Version:  version,
		Summary:  "Services of type LoadBalancer get the addresses of nodes; kube-proxy carries the traffic",
		Scope:    sdk.ServerScope,
		Requires: []sdk.Requirement{sdk.RequiresAPI},
		Rules: []sdk.Rule{
			{Verbs: read, APIGroups: []string{""}, Resources: []string{"services", "nodes"}},
			// For their host ports, and for externalTrafficPolicy: Local.
			{Verbs: read, APIGroups: []string{""}, Resources: []string{"pods"}},
			{Verbs: read, APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}},
			// For the ports that processes of the nodes hold.
			{Verbs: read, APIGroups: []string{"k3m.io"}, Resources: []string{"nodecomponents"}},
			{Verbs: []string{"create", "patch"}, APIGroups: []string{""}, Resources: []string{"events"}},
			{Verbs: []string{"patch"}, APIGroups: []string{""}, Resources: []string{"services/status"}},
		},
		Limits:       sdk.Limits{MemoryBytes: 256 << 20},
		ConfigSchema: json.RawMessage(configSchema),
	}
}

// ValidateConfig implements sdk.ConfigValidator.
func (*plugin) ValidateConfig(_ context.Context, raw json.RawMessage) []sdk.ConfigProblem {
	_, problems := parseConfig(raw)
	return problems
}

// WriteMetrics implements sdk.MetricsWriter.
func (p *plugin) WriteMetrics(_ context.Context, w io.Writer) error { return p.metrics.write(w) }

// Run implements sdk.Plugin. Addresses stay with the Services when it returns.
func (p *plugin) Run(ctx context.Context, host *sdk.Host) error {
	cfg, problems := parseConfig(host.Config())
	if len(problems) > 0 {
		var texts []string
		for _, problem := range problems {
			texts = append(texts, strings.TrimPrefix(problem.Path+": "+problem.Message, ": "))
		}
		return fmt.Errorf("configuration of %s: %s", id, strings.Join(texts, "; "))
	}
	clients, err := newClients(host.Kubeconfig())
	if err != nil {
		return err
	}
	watches, err := newWatches(clients)
	if err != nil {
		return err
	}
	c := &controller{
		cfg: cfg, reserved: reservedPorts(cfg), self: host.Facts().NodeName,
		networks: slices.Concat(host.Facts().ClusterCIDRs, host.Facts().ServiceCIDRs),
		clients:  clients, watches: watches, metrics: &p.metrics, log: host.Logger(),
		stories: map[types.UID]*story{}, healthy: host.Ready, ill: host.Degraded,
	}
	c.run(ctx)
	return nil
}
