package metricsserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/k3m-io/k3m/plugins/internal/klogs"
	"github.com/k3m-io/k3m/sdk"
)

// version is that of metrics-server's packages; a test holds it against go.mod.
const version = "0.9.0"

// New returns the component.
func New() sdk.Plugin { return &plugin{} }

type plugin struct{ exporter exporter }

var (
	_ sdk.Plugin          = (*plugin)(nil)
	_ sdk.ConfigValidator = (*plugin)(nil)
	_ sdk.MetricsWriter   = (*plugin)(nil)
)

// Info implements sdk.Plugin. It needs no right on the host: its port is a high one.
func (*plugin) Info() sdk.Info {
	return sdk.Info{
		Kind:     "metrics-server",
		Name:     "metrics-server",
		Version:  version,
		Summary:  "the resource metrics API, for kubectl top and autoscaling",
		Scope:    sdk.ServerScope,
		Requires: []sdk.Requirement{sdk.RequiresAPI, sdk.RequiresNode, "cni"},
		Rules: []sdk.Rule{
			// Who asks, and may they: the API server knows.
			{Verbs: []string{"create"}, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}},
			{Verbs: []string{"create"}, APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}},
			// By which certificate the API server itself is known when it asks for someone.
			{Verbs: []string{"get", "list", "watch"}, APIGroups: []string{""}, Resources: []string{"configmaps"},
				ResourceNames: []string{"extension-apiserver-authentication"}},
			// What there is to measure.
			{Verbs: []string{"list", "watch"}, APIGroups: []string{""}, Resources: []string{"nodes", "pods"}},
			// The kubelets' /metrics/resource.
			{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"nodes/metrics"}},
		},
		Limits:             sdk.Limits{MemoryBytes: 512 << 20},
		ConfigSchema:       json.RawMessage(configSchema),
		Services:           []string{serviceNamespace + "/" + serviceName},
		ServingCertificate: true,
		Labels:             map[string]string{"k8s-app": serviceName},
		Objects:            objects(),
	}
}

// Run implements sdk.Plugin.
func (p *plugin) Run(ctx context.Context, host *sdk.Host) error {
	cfg, problems := parseConfig(host.Config())
	if len(problems) > 0 {
		var texts []string
		for _, problem := range problems {
			texts = append(texts, strings.TrimPrefix(problem.Path+": "+problem.Message, ": "))
		}
		return fmt.Errorf("configuration of metrics-server.metrics-server: %s", strings.Join(texts, "; "))
	}
	if err := klogs.Capture(host.Logger(), atEachStart); err != nil {
		return err
	}
	s, err := newServer(ctx, cfg, host)
	if err != nil {
		return err
	}
	if err := p.exporter.open(cfg.resolution()); err != nil {
		return errors.Join(err, s.listener.Close())
	}
	return s.run(ctx)
}

// atEachStart is what the API machinery warns of, as metrics-server's scheme knows a version of
// the API that it doesn't serve.
const atEachStart = "Skipping API metrics.k8s.io/"
