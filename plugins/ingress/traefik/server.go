package traefik

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	gokitmetrics "github.com/go-kit/kit/metrics"
	"github.com/traefik/traefik/v2/pkg/config/dynamic"
	"github.com/traefik/traefik/v2/pkg/config/runtime"
	"github.com/traefik/traefik/v2/pkg/config/static"
	"github.com/traefik/traefik/v2/pkg/metrics"
	"github.com/traefik/traefik/v2/pkg/middlewares/accesslog"
	"github.com/traefik/traefik/v2/pkg/provider/acme"
	"github.com/traefik/traefik/v2/pkg/provider/aggregator"
	internal "github.com/traefik/traefik/v2/pkg/provider/traefik"
	"github.com/traefik/traefik/v2/pkg/safe"
	"github.com/traefik/traefik/v2/pkg/server"
	"github.com/traefik/traefik/v2/pkg/server/middleware"
	"github.com/traefik/traefik/v2/pkg/server/service"
	traefiktls "github.com/traefik/traefik/v2/pkg/tls"
	traefikversion "github.com/traefik/traefik/v2/pkg/version"
	"github.com/traefik/traefik/v2/webui"
	"github.com/vulcand/oxy/v2/roundrobin"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
	"github.com/k3m-io/k3m/sdk"
)

// defaultStore is the TLS store of the configured default certificate, which gives way to a TLSStore called default.
const defaultStore = "k3m-default"

// traefikServer is all that runs.
type traefikServer struct {
	host       *sdk.Host
	static     *static.Configuration
	controller *controller
	hosts      *hostListeners
	upstream   *server.Server
}

// newServer puts Traefik's parts together. It listens, and routes nothing before run. refused: see kit.NewClients.
func newServer(ctx context.Context, cfg config, host *sdk.Host, refused func()) (*traefikServer, error) {
	facts := host.Facts()
	clients, err := kit.NewClients(host.Kubeconfig(), id, facts.NodeName, refused)
	if err != nil {
		return nil, err
	}
	if err := useCredentials(ctx, clients, cfg); err != nil {
		return nil, err
	}
	if err := trustAuthorities(cfg, host.StateDir()); err != nil {
		return nil, err
	}
	// Traefik's provider of its own resources finds the API by it.
	if err := os.Setenv("KUBECONFIG", host.Kubeconfig()); err != nil {
		return nil, fmt.Errorf("name the kubeconfig to Traefik: %w", err)
	}
	s, listeners, err := staticConfiguration(ctx, cfg, facts, host.StateDir())
	if err != nil {
		return nil, err
	}
	traefikversion.Version = version
	if webui.FS, err = fs.Sub(dashboardFiles, "dashboard"); err != nil {
		return nil, err
	}
	if err := roundrobin.SetDefaultWeight(0); err != nil { // as Traefik's own command does
		return nil, err
	}
	t := &traefikServer{host: host, static: s}
	if t.controller, err = newController(cfg, host, clients); err != nil {
		return nil, err
	}
	t.hosts = &hostListeners{resolver: s.HostResolver, taken: t.controller.portsTaken}
	for _, l := range listeners {
		if l.host {
			t.hosts.all = append(t.hosts.all, l)
		}
	}
	return t, t.assemble(listeners)
}

// staticConfiguration is the configuration on this node.
func staticConfiguration(ctx context.Context, cfg config, facts sdk.Facts, stateDir string) (*static.Configuration, []listener, error) {
	s, problem := cfg.base()
	if problem != nil {
		return nil, nil, fmt.Errorf("configuration of %s: %s: %s", id, problem.Path, problem.Message)
	}
	gateways := facts.PodGateways
	if len(gateways) == 0 {
		gateways = facts.NodeIPs
	}
	if len(gateways) == 0 {
		return nil, nil, errors.New("the node has no address to listen on")
	}
	var hosts []netip.Addr
	// Ports 80 and 443 are the first ingress's, unless the configuration names others.
	if named := cfg.HTTPPort != 0 || cfg.HTTPSPort != 0; cfg.HostPorts && (facts.KindRank == 0 || named) {
		hosts = facts.NodeIPs
	}
	listeners := cfg.place(s, gateways, hosts)
	address, err := freeLoopback(ctx)
	if err != nil {
		return nil, nil, err
	}
	dashboard := &static.EntryPoint{}
	dashboard.SetDefaults()
	dashboard.Address = address
	dashboard.Transport.LifeCycle.GraceTimeOut = 0
	s.EntryPoints[internalName] = dashboard
	keepResolversIn(s, stateDir)
	s.SetEffectiveConfiguration()
	return s, listeners, writeDashboardAddress(stateDir, address)
}

// freeLoopback is an address on loopback whose port nobody has.
func freeLoopback(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a port for the dashboard: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// assemble does what Traefik's own command does, but for what is not served: plugins, Pilot, statistics, tracing's default.
func (t *traefikServer) assemble(listeners []listener) error {
	s := t.static
	pool := safe.NewPool(context.Background()) // ended by upstream.Close
	providers := aggregator.NewProviderAggregator(*s.Providers)
	c := challenges{http: acme.NewChallengeHTTP(), tls: acme.NewChallengeTLSALPN()}
	for _, p := range []interface {
		Provide(chan<- dynamic.Message, *safe.Pool) error
		Init() error
	}{internal.New(*s), c.tls, t.controller} {
		if err := providers.AddProvider(p); err != nil {
			return fmt.Errorf("start provider %T: %w", p, err)
		}
	}
	manager := traefiktls.NewManager()
	resolvers, err := addResolvers(s, providers, manager, c, pool)
	if err != nil {
		return err
	}
	tcp, err := server.NewTCPEntryPoints(certain(s, listeners), s.HostResolver)
	if err != nil {
		return err
	}
	udp, err := server.NewUDPEntryPoints(certain(s, listeners))
	if err != nil {
		return err
	}
	registry := metrics.NewMultiRegistry(registries(s.Metrics))
	var access *accesslog.Handler
	if s.AccessLog != nil {
		if access, err = accesslog.NewHandler(s.AccessLog); err != nil {
			return fmt.Errorf("open the access log: %w", err)
		}
	}
	tracer, err := newTracing(s.Tracing)
	if err != nil {
		return err
	}
	transports := service.NewRoundTripperManager()
	factory := service.NewManagerFactory(*s, pool, registry, transports, httpChallengeHandler(resolvers, c))
	chain := middleware.NewChainBuilder(registry, access, tracer)
	routers := server.NewRouterFactory(*s, factory, manager, chain, nil, registry)
	watcher := server.NewConfigurationWatcher(pool, providers, []string{webName, secureName}, "internal")

	watcher.AddListener(func(conf dynamic.Configuration) {
		useDefaultStore(conf.TLS)
		manager.UpdateConfigs(context.Background(), conf.TLS.Stores, conf.TLS.Options, conf.TLS.Certificates)
		for _, certificate := range manager.GetServerCertificates() {
			expiry(registry.TLSCertsNotAfterTimestampGauge(), certificate)
		}
	})
	watcher.AddListener(func(conf dynamic.Configuration) {
		registry.ConfigReloadsCounter().Add(1)
		registry.LastConfigReloadSuccessGauge().Set(float64(time.Now().Unix()))
		transports.Update(conf.HTTP.ServersTransports)
	})
	watcher.AddListener(func(conf dynamic.Configuration) {
		overTCP, overUDP := routers.CreateRouters(runtime.NewConfig(mirror(conf, listeners)))
		t.hosts.swap(overTCP)
		for name, r := range overTCP {
			if ep := tcp[name]; ep != nil {
				ep.SwitchRouter(r)
			}
		}
		udp.Switch(overUDP)
	})
	entryPoints := slices.Collect(func(yield func(string) bool) {
		for name := range s.EntryPoints {
			if !yield(name) {
				return
			}
		}
	})
	watcher.AddListener(func(conf dynamic.Configuration) { metrics.OnConfigurationUpdate(conf, entryPoints) })
	watcher.AddListener(c.tls.ListenConfiguration)
	for _, p := range resolvers {
		watcher.AddListener(p.ListenConfiguration)
	}
	watcher.AddListener(unknownResolvers(resolvers))
	watcher.AddListener(t.controller.applied)
	t.upstream = server.NewServer(pool, tcp, udp, watcher, chain, access)
	return nil
}

// useDefaultStore makes the configured default certificate the default store's, unless a TLSStore is.
func useDefaultStore(conf *dynamic.TLSConfiguration) {
	const ours = defaultStore + "@" + providerName
	store, there := conf.Stores[ours]
	if !there {
		return
	}
	delete(conf.Stores, ours)
	if _, taken := conf.Stores[traefiktls.DefaultTLSStoreName]; !taken {
		conf.Stores[traefiktls.DefaultTLSStoreName] = store
	}
}

func expiry(gauge gokitmetrics.Gauge, certificate *x509.Certificate) {
	names := slices.Sorted(slices.Values(certificate.DNSNames))
	gauge.With("cn", certificate.Subject.CommonName, "serial", certificate.SerialNumber.String(), "sans", strings.Join(names, ",")).
		Set(float64(certificate.NotAfter.Unix()))
}

// run serves until ctx ends.
func (t *traefikServer) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { t.hosts.run(ctx) })
	running.Go(func() { t.controller.run(ctx) })
	t.upstream.Start(ctx)
	t.upstream.Wait()
	running.Wait()
	t.upstream.Close()
	return nil
}
