package coredns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/k3m-io/k3m/sdk"
)

// version is that of CoreDNS's packages; a test holds it against go.mod.
const version = "1.15.0"

// service is the Service that pods know as their resolver.
const service = "kube-system/kube-dns"

// New returns the component.
func New() sdk.Plugin { return &plugin{} }

type plugin struct{}

var (
	_ sdk.Plugin          = (*plugin)(nil)
	_ sdk.ConfigValidator = (*plugin)(nil)
	_ sdk.MetricsWriter   = (*plugin)(nil)
)

// Info implements sdk.Plugin.
func (*plugin) Info() sdk.Info {
	return sdk.Info{
		Kind:     "dns",
		Name:     "coredns",
		Version:  version,
		Summary:  "cluster DNS on every node, by CoreDNS",
		Scope:    sdk.NodeScope,
		Requires: []sdk.Requirement{sdk.RequiresAPI, sdk.RequiresNode, "cni"},
		Rules: []sdk.Rule{
			// CoreDNS's kubernetes plugin, pods insecure.
			{Verbs: []string{"list", "watch"}, APIGroups: []string{""}, Resources: []string{"services", "namespaces"}},
			{Verbs: []string{"list", "watch"}, APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}},
			// The names and addresses of nodes.
			{Verbs: []string{"list", "watch"}, APIGroups: []string{""}, Resources: []string{"nodes"}},
			{Verbs: []string{"list", "watch"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{customName}},
			// What is wrong with it.
			{Verbs: []string{"create", "patch"}, APIGroups: []string{""}, Resources: []string{"events"}},
		},
		Privileges:   sdk.Privileges{Capabilities: []string{"CAP_NET_BIND_SERVICE"}},
		Limits:       sdk.Limits{MemoryBytes: memoryLimit},
		ConfigSchema: json.RawMessage(configSchema),
		Services:     []string{service},
		Labels:       map[string]string{"k8s-app": "kube-dns"},
		Objects:      []json.RawMessage{json.RawMessage(serviceObject)},
	}
}

// serviceObject has no selector: a server keeps its EndpointSlice, with a hint for each
// endpoint's own node, by which kube-proxy sends a pod's query to its own node as long as
// that has an endpoint, and to any other when it has none. trafficDistribution says the
// same to people, and to a proxy other than kube-proxy.
const serviceObject = `{
  "apiVersion": "v1",
  "kind": "Service",
  "metadata": {
    "name": "kube-dns",
    "namespace": "kube-system",
    "labels": {
      "k8s-app": "kube-dns",
      "kubernetes.io/cluster-service": "true",
      "kubernetes.io/name": "CoreDNS"
    }
  },
  "spec": {
    "clusterIP": "$(CLUSTER_DNS)",
    "clusterIPs": ["$(CLUSTER_DNS)"],
    "ipFamilyPolicy": "PreferDualStack",
    "ports": [
      {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
      {"name": "dns-tcp", "port": 53, "targetPort": 53, "protocol": "TCP"}
    ],
    "trafficDistribution": "PreferSameNode"
  }
}`

// Run implements sdk.Plugin.
func (*plugin) Run(ctx context.Context, host *sdk.Host) error {
	cfg, problems := parseConfig(host.Config())
	if len(problems) > 0 {
		var texts []string
		for _, problem := range problems {
			texts = append(texts, strings.TrimPrefix(problem.Path+": "+problem.Message, ": "))
		}
		return fmt.Errorf("configuration of dns.coredns: %s", strings.Join(texts, "; "))
	}
	captureLogs(host.Logger())
	tuneMemory()
	if err := register(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	api, err := newAPI(host.Kubeconfig(), func() {
		cancel(errors.New("the API refuses the component's credentials; the next start reads them anew"))
	})
	if err != nil {
		return err
	}
	err = newServer(cfg, environment{host.Facts(), host.StateDir(), host.Logger(), host}, api).run(ctx)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}
