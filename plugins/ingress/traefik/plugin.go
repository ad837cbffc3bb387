package traefik

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
	"github.com/k3m-io/k3m/sdk"
)

const (
	// id is the component's.
	id = "ingress.traefik"
	// version is Traefik's; a test holds it against go.mod.
	version = "2.11.33"

	serviceName    = "traefik"
	className      = "traefik"
	controllerName = "traefik.io/ingress-controller"

	// memoryLimit is for a cluster of some 10,000 Ingresses: Traefik keeps each router twice while it builds new ones.
	memoryLimit = 2 << 30
	// softMemory is where the garbage collector begins to work harder, before the limit ends the process.
	softMemory = memoryLimit / 10 * 9
	// garbagePercent (see GOGC) halves what an idle process keeps for nothing. Go's own 100 doubles the heap.
	garbagePercent = 50
)

// New returns the component.
func New() sdk.Plugin { return &plugin{} }

type plugin struct{ exporter exporter }

var (
	_ sdk.Plugin          = (*plugin)(nil)
	_ sdk.ConfigValidator = (*plugin)(nil)
	_ sdk.MetricsWriter   = (*plugin)(nil)
	_ sdk.Commander       = (*plugin)(nil)
)

var labels = map[string]string{"app.kubernetes.io/name": serviceName}

// Info implements sdk.Plugin.
func (*plugin) Info() sdk.Info {
	watch := []string{"list", "watch"}
	return sdk.Info{
		Kind:     "ingress",
		Name:     "traefik",
		Version:  version,
		Summary:  "Ingress, IngressRoute and their like, on ports 80 and 443 of every node, by Traefik",
		Scope:    sdk.NodeScope,
		Requires: []sdk.Requirement{sdk.RequiresAPI, sdk.RequiresNode, "cni"},
		Rules: []sdk.Rule{
			// What requests are led by, and to. Any secret may be named by an Ingress or a Middleware.
			{Verbs: watch, APIGroups: []string{""}, Resources: []string{"services", "endpoints", "secrets"}},
			{Verbs: watch, APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}},
			{Verbs: watch, APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses", "ingressclasses"}},
			{Verbs: watch, APIGroups: []string{"traefik.io", "traefik.containo.us"}, Resources: []string{
				"ingressroutes", "ingressroutetcps", "ingressrouteudps", "middlewares", "middlewaretcps",
				"serverstransports", "tlsoptions", "tlsstores", "traefikservices"}},
			// The addresses in an Ingress's status.
			{Verbs: []string{"patch"}, APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses/status"}},
			// What is wrong with an Ingress; and what a load balancer says of the component's Service.
			{Verbs: []string{"create", "patch"}, APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}},
			{Verbs: watch, APIGroups: []string{""}, Resources: []string{"events"}},
		},
		// For hostPorts, and entry points on low ports.
		Privileges:   sdk.Privileges{Capabilities: []string{"CAP_NET_BIND_SERVICE"}},
		Limits:       sdk.Limits{MemoryBytes: memoryLimit},
		ConfigSchema: json.RawMessage(configSchema),
		Commands:     []sdk.Command{{Name: dashboardCommand, Summary: "Open Traefik's dashboard on a local port"}},
		Services:     []string{kit.Namespace + "/" + serviceName},
		Labels:       labels,
		Objects:      definitions(),
		Declares: []sdk.ObjectRef{
			{APIVersion: "v1", Kind: "Service", Namespace: kit.Namespace, Name: serviceName},
			{APIVersion: "networking.k8s.io/v1", Kind: "IngressClass", Name: className},
		},
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
		return fmt.Errorf("configuration of %s: %s", id, strings.Join(texts, "; "))
	}
	debug.SetGCPercent(garbagePercent)
	debug.SetMemoryLimit(softMemory)
	if err := captureLogs(host.Logger(), cfg.LogLevel); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := newServer(ctx, cfg, host, func() { cancel(kit.ErrRefused) })
	if err != nil {
		return err
	}
	p.exporter.open()
	if err := s.run(ctx); err != nil {
		return err
	}
	if cause := context.Cause(ctx); errors.Is(cause, kit.ErrRefused) {
		return cause
	}
	return nil
}
