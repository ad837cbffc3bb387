package coredns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	corednsplugin "github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/kubernetes"
	"github.com/coredns/coredns/request"
	"github.com/hashicorp/go-hclog"
	"github.com/miekg/dns"
)

// cluster is CoreDNS's kubernetes plugin, once for the process: chains come and go with
// each change of the configuration, what is known of the cluster stays.
type cluster struct {
	domain     string // "cluster.local."
	kubernetes *kubernetes.Kubernetes
	base       *chain
	// synced is closed when all that the plugin answers from has been read.
	synced chan struct{}
	// waiting bounds how many queries wait for that.
	waiting chan struct{}
}

const (
	// clusterTTL is that of CoreDNS's own default, in seconds.
	clusterTTL = 5
	// syncWait is how long a query waits for the cluster's names to be read, which takes
	// some hundredths of a second after a start: less than a resolver's own patience.
	syncWait = 2 * time.Second
	// maxWaiting keeps them from filling the memory.
	maxWaiting = 1024
	// syncCheck is how often the plugin is asked whether it has read all: it has no way to
	// tell by itself, and is asked only until then.
	syncCheck = 5 * time.Millisecond
)

// newCluster sets the plugin up, with the given addresses for its own, and has it start
// to read, which run ends.
func newCluster(domain string, self []netip.Addr, api *api) (*cluster, error) {
	p := &parts{listenHosts: []string{}}
	for _, addr := range self {
		p.listenHosts = append(p.listenHosts, netip.PrefixFrom(addr, addr.BitLen()).String())
	}
	// The plugin takes its clients from a kubeconfig or from a pod's files only; those of
	// the kubeconfig are replaced before they are used, for protobuf and for credentials
	// that end.
	corefile := fmt.Sprintf(". {\n%s\nkubernetes %s in-addr.arpa ip6.arpa {\nkubeconfig %s\npods insecure\nttl %d\n"+
		"fallthrough in-addr.arpa ip6.arpa\nstartup_timeout 1ns\n}\n}\n",
		directiveParts, quote(domain), quote(api.kubeconfig), clusterTTL)
	instance := &caddy.Instance{Storage: map[any]any{partsKey{}: p}}
	input := caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: serverType}
	if err := caddy.ValidateAndExecuteDirectives(input, instance, false); err != nil {
		return nil, fmt.Errorf("set up CoreDNS's kubernetes plugin: %w", err)
	}
	if len(p.config.Plugin) != 1 {
		return nil, errors.New("set up CoreDNS's kubernetes plugin: it is not there")
	}
	k, ok := p.config.Plugin[0](nil).(*kubernetes.Kubernetes)
	if !ok {
		return nil, errors.New("set up CoreDNS's kubernetes plugin: it is another")
	}
	k.ClientConfig = clientConfig{k.ClientConfig, api.config}
	// The callbacks of the instance work on what this puts into k.
	if _, _, err := k.InitKubeCache(context.Background()); err != nil {
		return nil, fmt.Errorf("set up CoreDNS's kubernetes plugin: %w", err)
	}
	for _, start := range instance.OnStartup {
		if err := start(); err != nil {
			return nil, fmt.Errorf("start CoreDNS's kubernetes plugin: %w", err)
		}
	}
	return &cluster{
		domain: corednsplugin.Name(domain).Normalize(), kubernetes: k, base: &chain{instance: instance},
		synced: make(chan struct{}), waiting: make(chan struct{}, maxWaiting),
	}, nil
}

// run sees the cluster's names read, and ends the reading when ctx does.
func (c *cluster) run(ctx context.Context, log hclog.Logger) error {
	defer c.base.shutdown(log)
	ticker := time.NewTicker(syncCheck)
	defer ticker.Stop()
	for !c.kubernetes.APIConn.HasSynced() {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
	ticker.Stop()
	close(c.synced)
	<-ctx.Done()
	return nil
}

// ready waits, within bounds, until the cluster's names have been read, and says whether
// they have.
func (c *cluster) ready() bool {
	select {
	case <-c.synced:
		return true
	default:
	}
	select {
	case c.waiting <- struct{}{}:
		defer func() { <-c.waiting }()
	default:
		return false
	}
	timer := time.NewTimer(syncWait)
	defer timer.Stop()
	select {
	case <-c.synced:
		return true
	case <-timer.C:
		return false
	}
}

// clusterHandler is the cluster in one chain.
type clusterHandler struct {
	kubernetes.Kubernetes
	cluster *cluster
}

func setupCluster(c *caddy.Controller) error {
	p, err := partsOf(c)
	if err != nil {
		return err
	}
	dnsserver.GetConfig(c).AddPlugin(func(next corednsplugin.Handler) corednsplugin.Handler {
		h := &clusterHandler{Kubernetes: *p.cluster.kubernetes, cluster: p.cluster}
		h.Next = next
		return h
	})
	return nil
}

// clusterFirst answers for the cluster's domain, which no other plugin of the chain does,
// and passes all else on.
type clusterFirst struct {
	clusterHandler
	domain string
	next   corednsplugin.Handler
}

func setupClusterFirst(c *caddy.Controller) error {
	p, err := partsOf(c)
	if err != nil {
		return err
	}
	dnsserver.GetConfig(c).AddPlugin(func(next corednsplugin.Handler) corednsplugin.Handler {
		h := &clusterFirst{domain: p.cluster.domain, next: next}
		h.Kubernetes, h.cluster = *p.cluster.kubernetes, p.cluster
		return h
	})
	return nil
}

// ServeDNS implements plugin.Handler.
func (h *clusterFirst) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	if !corednsplugin.Name(h.domain).Matches(state.Name()) {
		return corednsplugin.NextOrFailure(h.Name(), h.next, ctx, w, r)
	}
	return h.clusterHandler.ServeDNS(ctx, w, r)
}

// ServeDNS implements plugin.Handler. As long as the cluster's names have not been read
// the answer is that nobody knows, never that there is no such name: resolvers, CoreDNS's
// own cache among them, would keep that.
func (h *clusterHandler) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	if corednsplugin.Zones(h.Zones).Matches(state.Name()) != "" && !h.cluster.ready() {
		return dns.RcodeServerFailure, nil
	}
	return h.Kubernetes.ServeDNS(ctx, w, r)
}
