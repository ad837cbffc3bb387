package coredns

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/k3m-io/k3m/sdk"
)

const (
	// memoryLimit is the component's cgroup's, in bytes: CoreDNS's own deployment takes 170
	// MiB for a cluster of 5000 Services.
	memoryLimit = 384 << 20
	// softMemory is when the garbage collector works harder.
	softMemory = 256 << 20
	// garbagePercent lets garbage grow to three times what lives, which is little.
	garbagePercent = 300

	// retireAfter is how long a chain may still have queries under way after another took
	// its place: a query to upstreams takes answerWithin, those of coredns-custom 5 s.
	retireAfter = 6 * time.Second
	// stopGrace is how long the end waits for queries under way.
	stopGrace = 2 * time.Second
	// silenceOfAPI is how long a start without the cluster's names is not worth a word.
	silenceOfAPI = 10 * time.Second
)

// tuneMemory sets Go's garbage collector for a small heap with much traffic.
func tuneMemory() {
	debug.SetGCPercent(garbagePercent)
	debug.SetMemoryLimit(softMemory)
}

// reporter is the part of sdk.Host that says how the component fares.
type reporter interface {
	Ready()
	Degraded(reason string)
	Serve(endpoints ...sdk.Endpoint)
}

// server is the component at work. Its fields below the line belong to the goroutine of
// run.
type server struct {
	config    config
	api       *api
	log       hclog.Logger
	report    reporter
	node      string
	domain    string
	gateways  []netip.Addr
	service   []netip.Addr // the cluster's DNS
	resolvers resolvers
	kept      lastGood

	cluster *cluster
	nodes   *nodeNames
	probes  *probes

	sockets   *sockets
	events    *events
	retire    func(*chain)
	upstreams []netip.AddrPort // as configured, loops included
	noneSince string           // why there are none
	loops     map[netip.AddrPort]bool
	good      *custom
	goodData  map[string]string
	refused   string // the version of the ConfigMap that an Event was written for
	broken    error  // why the Corefile in force is not the one that should be
	synced    bool
	silent    bool
}

// environment is what the host gives the component.
type environment struct {
	facts    sdk.Facts
	stateDir string
	log      hclog.Logger
	report   reporter
}

func newServer(cfg config, env environment, api *api) *server {
	gateways := env.facts.PodGateways
	if len(gateways) == 0 {
		gateways = env.facts.NodeIPs // the network of pods is not k3m's
	}
	self := slices.Concat(env.facts.ClusterDNS, gateways)
	return &server{
		config: cfg, api: api, log: env.log, report: env.report,
		node: env.facts.NodeName, domain: env.facts.ClusterDomain, gateways: gateways, service: env.facts.ClusterDNS,
		resolvers: resolvers{files: resolverFiles(env.facts.ResolvConf), self: self},
		kept:      newLastGood(env.stateDir),
		nodes:     newNodeNames(), probes: newProbes(), loops: map[netip.AddrPort]bool{},
	}
}

// run answers queries until ctx ends. It answers as soon as its sockets are there, which
// does not wait for the API: see cluster.ready.
func (s *server) run(ctx context.Context) (err error) {
	if s.cluster, err = newCluster(s.domain, s.service, s.api); err != nil {
		return err
	}
	s.readUpstreams()
	s.loadKept()
	first, err := s.build(s.good)
	if err != nil {
		s.cluster.base.shutdown(s.log)
		return fmt.Errorf("set up CoreDNS: %w", err)
	}
	if s.sockets, err = listen(ctx, s.gateways, first, s.probes.take); err != nil {
		first.shutdown(s.log)
		s.cluster.base.shutdown(s.log)
		return err
	}
	s.report.Serve(endpoints(s.gateways)...) // the node closes the ports to the outside from here on
	s.events = newEvents(s.api, s.node)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.cluster.run(ctx, s.log) })
	group.Go(func() error { return s.nodes.run(ctx, s.api) })
	customs := make(chan customState)
	group.Go(func() error {
		return watchCustom(ctx, s.api, func(c customState) { send(ctx, customs, c) })
	})
	resolved := make(chan struct{})
	if s.config.upstreams == nil {
		group.Go(func() error {
			return s.resolvers.watch(ctx, s.log, func() { send(ctx, resolved, struct{}{}) })
		})
	}
	found := make(chan loopFinding)
	var stopChecks context.CancelFunc = func() {}
	check := func() {
		stopChecks()
		var checks context.Context
		checks, stopChecks = context.WithCancel(ctx)
		upstreams := slices.Clone(s.upstreams)
		group.Go(func() error {
			s.probes.check(checks, upstreams, func(f loopFinding) { send(checks, found, f) })
			return nil
		})
	}
	s.retire = func(old *chain) {
		group.Go(func() error {
			timer := time.NewTimer(retireAfter)
			defer timer.Stop()
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			old.shutdown(s.log)
			return nil
		})
	}
	group.Go(func() error {
		defer func() { stopChecks() }()
		check()
		silence := time.NewTimer(silenceOfAPI)
		defer silence.Stop()
		synced := s.cluster.synced
		for {
			select {
			case <-ctx.Done():
				return nil
			case err := <-s.sockets.failed:
				return fmt.Errorf("read queries: %w", err)
			case <-synced:
				s.synced, synced = true, nil
			case <-silence.C:
				s.silent = true
			case c := <-customs:
				s.takeCustom(c)
			case <-resolved:
				if !s.readUpstreams() {
					continue
				}
				s.log.Info("the host's resolvers are others now", "upstreams", joinUpstreams(s.upstreams))
				s.apply()
				check()
			case f := <-found:
				s.takeLoop(f)
			}
			s.tellHealth()
		}
	})
	err = group.Wait()
	s.end()
	return err
}

// send gives up when ctx ends.
func send[T any](ctx context.Context, to chan<- T, value T) {
	select {
	case to <- value:
	case <-ctx.Done():
	}
}

// end lets queries under way be answered, and then takes the chain apart.
func (s *server) end() {
	s.report.Serve()
	grace, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	s.sockets.close(grace)
	s.sockets.current.Load().shutdown(s.log)
	s.events.close()
}

// readUpstreams says whether they have changed.
func (s *server) readUpstreams() bool {
	upstreams, why := s.config.upstreams, ""
	if upstreams == nil {
		upstreams, why = s.resolvers.read()
	}
	if slices.Equal(upstreams, s.upstreams) && why == s.noneSince {
		return false
	}
	s.upstreams, s.noneSince = upstreams, why
	maps.DeleteFunc(s.loops, func(u netip.AddrPort, _ bool) bool { return !slices.Contains(upstreams, u) })
	return true
}

// usable are the upstreams that do not lead back here.
func (s *server) usable() []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(s.upstreams), func(u netip.AddrPort) bool { return s.loops[u] })
}

func (s *server) rules() customRules {
	return customRules{upstreams: s.usable(), self: s.resolvers.self}
}

// build makes a chain of all that is known, with the given customisation.
func (s *server) build(c *custom) (*chain, error) {
	f := corefile{config: s.config, domain: s.domain, upstreams: s.usable(), custom: c}
	return newChain(f.render(), &parts{cluster: s.cluster, nodes: s.nodes}, s.log)
}

// loadKept takes the customisation that was good the last time.
func (s *server) loadKept() {
	data, err := s.kept.load()
	var c *custom
	if err == nil {
		c, err = parseCustom(data, s.rules())
	}
	if err == nil && c != nil {
		var probe *chain
		if probe, err = s.build(c); err == nil {
			probe.shutdown(s.log)
			s.good, s.goodData = c, data
		}
	}
	if err != nil {
		s.log.Warn("start without the last good "+customName, "error", err)
	}
}

// apply puts what is known in force. What is in force stays when that can't be.
func (s *server) apply() {
	c, err := parseCustom(s.goodData, s.rules())
	var next *chain
	if err == nil {
		next, err = s.build(c)
	}
	if err != nil && s.goodData != nil { // it named the host's resolvers, and there are none now
		s.log.Warn(customName+" is not good for the upstreams that there are now; going on without it", "error", err)
		c = nil
		next, err = s.build(nil)
	}
	if s.broken = err; err != nil {
		s.log.Error("the configuration of CoreDNS can't be renewed; the last one stays in force", "error", err)
		return
	}
	s.good = c
	s.retire(s.sockets.swap(next))
}

// takeCustom puts a new coredns-custom in force, or says why not.
func (s *server) takeCustom(state customState) {
	data := state.data()
	if maps.Equal(data, s.goodData) {
		s.refused = ""
		return
	}
	c, err := parseCustom(data, s.rules())
	var next *chain
	if err == nil {
		next, err = s.build(c)
	}
	if err != nil && state.object == nil { // nothing of the user's is to blame
		s.broken = err
		s.log.Error("the configuration of CoreDNS can't be renewed; the last one stays in force", "error", err)
		return
	}
	if err != nil {
		if version := state.object.ResourceVersion; version != s.refused {
			s.refused = version
			s.log.Warn("refused "+customNamespace+"/"+customName+"; what was good before stays in force", "error", err)
			s.events.refused(state.object, err)
		}
		return
	}
	healed := s.refused != ""
	s.good, s.goodData, s.refused, s.broken = c, data, "", nil
	s.retire(s.sockets.swap(next))
	if err := s.kept.save(data); err != nil {
		s.log.Warn("the next start may not know it", "error", err)
	}
	s.log.Info("took " + customNamespace + "/" + customName)
	if healed && state.object != nil { // each node would say so each time
		s.events.taken(state.object)
	}
}

// takeLoop leaves out an upstream that leads back here, or takes it in again.
func (s *server) takeLoop(f loopFinding) {
	if f.loops {
		s.loops[f.upstream] = true
		s.log.Warn("an upstream sends queries back to this node; leaving it out", "upstream", f.upstream)
	} else {
		delete(s.loops, f.upstream)
		s.log.Info("an upstream does not send queries back any more", "upstream", f.upstream)
	}
	s.apply()
}

// tellHealth says how the component fares, in one word for all that it knows.
func (s *server) tellHealth() {
	var reasons []string
	if !s.synced {
		if !s.silent {
			return // it has only just started
		}
		reasons = append(reasons, "the cluster's names are not known yet: the API does not answer")
	}
	if s.broken != nil {
		reasons = append(reasons, fmt.Sprintf("the configuration can't be renewed: %v", s.broken))
	}
	if len(s.usable()) == 0 && !s.good.overrides("forward .") {
		why := s.noneSince
		if len(s.upstreams) > 0 {
			why = "queries to " + joinUpstreams(s.upstreams) + " come back to this node in a loop"
		}
		reasons = append(reasons, "names outside the cluster are not resolved: "+why+
			" (name resolvers: components: dns.coredns: upstreams)")
	}
	if len(reasons) > 0 {
		s.report.Degraded(strings.Join(reasons, "; "))
		return
	}
	s.report.Ready()
}

// endpoints says where the Service is served, one Endpoint a family.
func endpoints(gateways []netip.Addr) []sdk.Endpoint {
	var all []sdk.Endpoint
	for _, is6 := range []bool{false, true} {
		var addrs []netip.Addr
		for _, g := range gateways {
			if g.Is6() == is6 {
				addrs = append(addrs, g)
			}
		}
		if len(addrs) > 0 {
			all = append(all, sdk.Endpoint{Service: service, Addresses: addrs, Ports: []sdk.EndpointPort{
				{Name: "dns", Protocol: sdk.UDP, Port: dnsPort},
				{Name: "dns-tcp", Protocol: sdk.TCP, Port: dnsPort},
			}})
		}
	}
	return all
}
