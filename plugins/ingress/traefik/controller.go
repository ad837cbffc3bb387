package traefik

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/traefik/traefik/v2/pkg/config/dynamic"
	"github.com/traefik/traefik/v2/pkg/safe"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
	"github.com/k3m-io/k3m/sdk"
)

// readPatience is how long a change waits for secrets that are watched for the first time. A request takes milliseconds.
const readPatience = time.Second

// controller is a provider of Traefik's: it follows the cluster's Ingresses. It also tells how the component fares, owns
// the Service and the IngressClass, and writes statuses and Events.
type controller struct {
	cfg       config
	host      *sdk.Host
	exposure  kit.Exposure
	cluster   *cluster
	published *kit.Published
	recorder  *kit.Recorder
	statuses  *kit.StatusWriter
	auditor   kit.Auditor
	changed   chan struct{} // one token: something is to be looked at

	mu sync.Mutex
	// serving is set once Traefik routes by the cluster's Ingresses.
	serving bool
	// taken says which ports of the node are taken; empty if none.
	taken string
}

func newController(cfg config, host *sdk.Host, clients *kit.Clients) (*controller, error) {
	facts := host.Facts()
	c := &controller{cfg: cfg, host: host, changed: make(chan struct{}, 1),
		exposure: kit.Expose(id, facts.KindRank, cfg.HTTPPort, cfg.HTTPSPort),
		recorder: kit.NewRecorder(clients, host.Logger()), statuses: kit.NewStatusWriter(clients, host.Logger())}
	var err error
	if c.cluster, err = newCluster(clients, c.look); err != nil {
		return nil, err
	}
	if c.published, err = kit.NewPublished(clients, serviceName, facts.NodeIPs, c.look); err != nil {
		return nil, err
	}
	return c, c.own()
}

// own says what the Service and the IngressClass are.
func (c *controller) own() error {
	options := kit.ObjectsOptions{Service: serviceName, Class: className, Controller: controllerName, Labels: labels,
		NodePortOnly: c.exposure.NodePortOnly || c.cfg.HostPorts, Default: c.exposure.Default,
		Ports: []kit.Port{{Name: webName, Port: c.exposure.HTTP}, {Name: secureName, Port: c.exposure.HTTPS}}}
	for _, name := range c.cfg.names()[2:] {
		e := c.cfg.EntryPoints[name]
		p := kit.Port{Name: name, Port: e.Port}
		if e.udp() {
			p.Protocol = corev1.ProtocolUDP
		}
		options.Ports = append(options.Ports, p)
	}
	objects, err := kit.Objects(options)
	if err != nil {
		return err
	}
	if c.exposure.Warning != "" {
		c.host.Logger().Warn(c.exposure.Warning)
	}
	c.host.Own(objects...)
	return nil
}

// look asks for a look at what has changed.
func (c *controller) look() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// portsTaken is told which ports of the node are taken.
func (c *controller) portsTaken(which string) {
	c.mu.Lock()
	c.taken = which
	c.mu.Unlock()
	c.look()
}

// applied is told each configuration that Traefik routes by.
func (c *controller) applied(conf dynamic.Configuration) {
	if _, ours := conf.HTTP.Middlewares[retryName+"@"+providerName]; !ours {
		return
	}
	c.mu.Lock()
	first := !c.serving
	c.serving = true
	c.mu.Unlock()
	if first {
		c.serve()
		c.look()
	}
}

// serve says where the component serves its Service: on every gateway, or the node's addresses without any.
func (c *controller) serve() {
	facts := c.host.Facts()
	addresses := facts.PodGateways
	if len(addresses) == 0 {
		addresses = facts.NodeIPs
	}
	var endpoints []sdk.Endpoint
	for _, address := range addresses {
		e := sdk.Endpoint{Service: kit.Namespace + "/" + serviceName, Addresses: []netip.Addr{address}}
		for _, name := range c.cfg.names() {
			port := sdk.EndpointPort{Name: name, Protocol: sdk.TCP}
			var udp bool
			if port.Port, _, udp = c.cfg.ports(name); udp {
				port.Protocol = sdk.UDP
			}
			e.Ports = append(e.Ports, port)
		}
		endpoints = append(endpoints, e)
	}
	c.host.Serve(endpoints...)
}

// Init implements Traefik's provider.Provider.
func (*controller) Init() error { return nil }

// ThrottleDuration tells Traefik to take what the controller provides at once: it gathers changes itself.
func (*controller) ThrottleDuration() time.Duration { return 0 }

// Provide implements Traefik's provider.Provider.
func (c *controller) Provide(to chan<- dynamic.Message, pool *safe.Pool) error {
	pool.GoCtx(func(ctx context.Context) { c.follow(ctx, to) })
	return nil
}

// run keeps the cluster in memory and writes to it, until ctx ends.
func (c *controller) run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { c.cluster.run(ctx.Done()) })
	running.Go(func() { c.published.Run(ctx.Done()) })
	running.Go(func() { c.recorder.Run(ctx) })
	running.Go(func() { c.statuses.Run(ctx) })
	running.Wait()
}

// follow looks at the cluster after each change.
func (c *controller) follow(ctx context.Context, to chan<- dynamic.Message) {
	if !c.cluster.synced(ctx.Done()) || !c.published.Synced(ctx.Done()) {
		return
	}
	var again <-chan time.Time // time alone changes the verdict on a certificate
	for {
		result, conf, mine, others := c.translate()
		select {
		case to <- dynamic.Message{ProviderName: providerName, Configuration: conf}:
		case <-ctx.Done():
			return
		}
		c.report(result.Findings, mine, others)
		again = nil
		if !result.Again.IsZero() {
			again = time.After(time.Until(result.Again))
		}
		// The pause gathers what a rollout changes at once; see settle.
		pause := time.NewTimer(settle)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		case <-again:
		}
	}
}

func (c *controller) translate() (result kit.AuditResult, conf *dynamic.Configuration, mine, others []*networkingv1.Ingress) {
	mine, others = c.cluster.split()
	wanted := map[types.NamespacedName]bool{}
	for _, i := range mine {
		for _, tls := range i.Spec.TLS {
			if tls.SecretName != "" {
				wanted[types.NamespacedName{Namespace: i.Namespace, Name: tls.SecretName}] = true
			}
		}
	}
	if namespace, name := secretName(c.cfg.DefaultCertificate); name != "" {
		wanted[types.NamespacedName{Namespace: namespace, Name: name}] = true
	}
	if err := c.cluster.secrets.Want(wanted, readPatience); err != nil {
		c.host.Logger().Error("watch the secrets of Ingresses", "err", err)
	}
	result = c.auditor.Run(kit.AuditInput{Ingresses: mine, Service: c.cluster.service, Secret: c.cluster.secrets.Secret, Now: time.Now()})
	t := translation{service: c.cluster.service, endpoints: c.cluster.endpoints, secret: c.cluster.secrets.Secret, lost: result.Lost,
		defaultCertificate: c.cfg.DefaultCertificate, externalNames: c.cfg.AllowExternalNameServices, domain: c.host.Facts().ClusterDomain}
	var more []kit.Finding
	conf, more = t.run(mine)
	result.Findings = append(result.Findings, more...)
	return result, conf, mine, others
}

// report tells all who want to know how things are: the owners of Ingresses, and the host.
func (c *controller) report(findings []kit.Finding, mine, others []*networkingv1.Ingress) {
	state := c.published.State()
	if state.Speaker {
		addresses := state.Ingress
		if c.cfg.HostPorts && len(addresses) == 0 {
			addresses = kit.NodeAddresses(c.host.Facts().NodeIPs, c.exposure)
		}
		c.recorder.Sync("audit", findings)
		c.statuses.Sync(kit.StatusInput{Mine: mine, Left: others, Addresses: addresses})
	} else {
		c.recorder.Sync("audit", nil) // another node's component repeats it
	}
	if reason, ready := c.health(state); ready {
		c.host.Ready()
	} else if reason != "" {
		c.host.Degraded(reason)
	}
}

// health is whether the component does all that it should, or why not; neither before it serves.
func (c *controller) health(state kit.PublishedState) (reason string, ready bool) {
	c.mu.Lock()
	serving, taken := c.serving, c.taken
	c.mu.Unlock()
	var reasons []string
	for _, r := range []string{taken, state.Pending, c.defaultCertificateProblem()} {
		if r != "" {
			reasons = append(reasons, r)
		}
	}
	if !serving {
		return "", false
	}
	return strings.Join(reasons, "; "), len(reasons) == 0
}

// defaultCertificateProblem says what is wrong with the configured default certificate; empty for nothing.
func (c *controller) defaultCertificateProblem() string {
	namespace, name := secretName(c.cfg.DefaultCertificate)
	if name == "" {
		return ""
	}
	secret := c.cluster.secrets.Secret(namespace, name)
	err := errors.New("it does not exist")
	if secret != nil {
		_, err = kit.Certificate(secret)
	}
	if err != nil {
		return fmt.Sprintf("defaultCertificate: secret %s: %v; a certificate of Traefik's own is shown", c.cfg.DefaultCertificate, err)
	}
	return ""
}
