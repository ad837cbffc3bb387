package nginx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
	"github.com/k3m-io/k3m/sdk"
)

// id is the component's.
const id = "ingress.nginx"

// version is the component's own: nginx is the host's.
const version = "1.0.0"

const (
	// serviceName has the name that ingress-nginx's chart gives to its own.
	serviceName = "ingress-nginx-controller"
	// service is by which clients come.
	service = kit.Namespace + "/" + serviceName
)

// memoryLimit bounds the controller and nginx together: ten thousand Ingresses take a
// quarter of it, and a reload doubles nginx's part for a moment.
const memoryLimit = 2 << 30

// labels are those of ingress-nginx, by which NetworkPolicies know it.
func labels() map[string]string {
	return map[string]string{
		"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/instance": "ingress-nginx",
		"app.kubernetes.io/component": "controller",
	}
}

// New returns the component.
func New() sdk.Plugin { return &plugin{} }

type plugin struct{ metrics metrics }

var (
	_ sdk.Plugin          = (*plugin)(nil)
	_ sdk.ConfigValidator = (*plugin)(nil)
	_ sdk.MetricsWriter   = (*plugin)(nil)
)

// Info implements sdk.Plugin.
func (*plugin) Info() sdk.Info {
	read := []string{"list", "watch"}
	return sdk.Info{
		Kind:     "ingress",
		Name:     "nginx",
		Version:  version,
		Summary:  "Ingresses on ports 80 and 443 of every node, by the host's nginx",
		Scope:    sdk.NodeScope,
		Requires: []sdk.Requirement{sdk.RequiresAPI, "cni"},
		Rules: []sdk.Rule{
			{Verbs: read, APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses", "ingressclasses"}},
			{Verbs: []string{"patch"}, APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses/status"}},
			{Verbs: read, APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}},
			// TLS and password secrets may be anywhere, by any name, and so may the ConfigMap
			// that an IngressClass names.
			{Verbs: read, APIGroups: []string{""}, Resources: []string{"services", "secrets", "configmaps"}},
			// What the load balancer says of the component's Service, and what is wrong with an
			// Ingress.
			{Verbs: read, APIGroups: []string{""}, Resources: []string{"events"}},
			{Verbs: []string{"create", "patch"}, APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}},
		},
		Privileges:   sdk.Privileges{Capabilities: []string{"CAP_NET_BIND_SERVICE"}},
		Limits:       sdk.Limits{MemoryBytes: memoryLimit},
		ConfigSchema: json.RawMessage(configSchema),
		Services:     []string{service},
		Labels:       labels(),
		Declares: []sdk.ObjectRef{
			{APIVersion: "v1", Kind: "Service", Namespace: kit.Namespace, Name: serviceName},
			{APIVersion: "networking.k8s.io/v1", Kind: "IngressClass", Name: className},
		},
	}
}

// WriteMetrics implements sdk.MetricsWriter.
func (p *plugin) WriteMetrics(ctx context.Context, w io.Writer) error { return p.metrics.write(ctx, w) }

// Run implements sdk.Plugin.
func (p *plugin) Run(ctx context.Context, host *sdk.Host) error {
	cfg, problems := parseConfig(host.Config())
	if len(problems) > 0 {
		return fmt.Errorf("configuration of %s: %s", id, problemText(problems))
	}
	facts := host.Facts()
	exposure := kit.Expose(id, facts.KindRank, cfg.HTTPPort, cfg.HTTPSPort)
	if exposure.Warning != "" && !cfg.HostPorts {
		host.Logger().Warn(exposure.Warning)
	}
	objects, err := kit.Objects(kit.ObjectsOptions{
		Service: serviceName, Class: className, Controller: controllerName, Labels: labels(),
		Ports:        []kit.Port{{Name: "http", Port: exposure.HTTP}, {Name: "https", Port: exposure.HTTPS}},
		NodePortOnly: exposure.NodePortOnly, Default: exposure.Default,
	})
	if err != nil {
		return err
	}
	host.Own(objects...)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	clients, err := kit.NewClients(host.Kubeconfig(), id, facts.NodeName, func() { cancel(kit.ErrRefused) })
	if err != nil {
		return err
	}
	watches, err := newWatches(clients)
	if err != nil {
		return err
	}
	published, err := kit.NewPublished(clients, serviceName, facts.NodeIPs, func() { watches.mark(changedPublished) })
	if err != nil {
		return err
	}
	s := &session{
		cfg: cfg, facts: facts, host: host, exposure: exposure, watches: watches, published: published, metrics: &p.metrics,
		recorder: kit.NewRecorder(clients, host.Logger()), statuses: kit.NewStatusWriter(clients, host.Logger()),
		health: &health{ready: host.Ready, degraded: host.Degraded},
	}
	// What runs beside ends when this returns.
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel(nil)
	beside.Go(func() { watches.run(ctx.Done()) })
	beside.Go(func() { published.Run(ctx.Done()) })
	beside.Go(func() { s.recorder.Run(ctx) })
	beside.Go(func() { s.statuses.Run(ctx) })
	for ctx.Err() == nil {
		if err := s.run(ctx); err != nil && !errors.Is(err, errAgain) {
			return err
		}
	}
	if cause := context.Cause(ctx); errors.Is(cause, kit.ErrRefused) {
		return cause
	}
	return nil
}

// endpoints say where nginx answers, for sdk.Host.Serve.
func endpoints(gateways []netip.Addr) []sdk.Endpoint {
	var all []sdk.Endpoint
	for _, gateway := range gateways {
		all = append(all, sdk.Endpoint{Service: service, Addresses: []netip.Addr{gateway}, Ports: []sdk.EndpointPort{
			{Name: "http", Protocol: sdk.TCP, Port: internalHTTP},
			{Name: "https", Protocol: sdk.TCP, Port: internalHTTPS},
		}})
	}
	return all
}
