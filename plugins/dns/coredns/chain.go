package coredns

import (
	"errors"
	"fmt"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/hashicorp/go-hclog"
)

// chain is what CoreDNS made of one Corefile: its plugins, ready to be asked. It has no
// sockets.
//
//	newChain ── serve any number of queries ── shutdown
type chain struct {
	server   *dnsserver.Server
	config   *dnsserver.Config // of the first server block
	instance *caddy.Instance
}

// parts travels with a Corefile to the directives of this package: what they need from
// the component, and what they find out for newChain.
type parts struct {
	cluster *cluster
	nodes   *nodeNames
	// listenHosts are what the kubernetes plugin takes for the addresses of the server
	// itself, as prefixes.
	listenHosts []string

	context caddy.Context
	config  *dnsserver.Config
}

// partsKey is where an Instance keeps its parts.
type partsKey struct{}

func partsOf(c *caddy.Controller) (*parts, error) {
	p, ok := c.Get(partsKey{}).(*parts)
	if !ok {
		return nil, c.Err("is k3m's own")
	}
	return p, nil
}

// setupParts is the directive that hands what caddy keeps to newChain.
func setupParts(c *caddy.Controller) error {
	p, err := partsOf(c)
	if err != nil {
		return err
	}
	p.context, p.config = c.Context(), dnsserver.GetConfig(c)
	if p.listenHosts != nil {
		p.config.ListenHosts = p.listenHosts
	}
	return nil
}

// newChain has CoreDNS read the Corefile and make its plugins. Nothing of it is left
// behind when it fails, and chains that are in use are not touched. Not to be called by
// two goroutines at once: caddy's registries and logs are the process's.
func newChain(corefile string, p *parts, log hclog.Logger) (made *chain, err error) {
	instance := &caddy.Instance{Storage: map[any]any{partsKey{}: p}}
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("set up CoreDNS: it panicked: %v", panicked)
		}
		if err != nil {
			made = nil
			(&chain{instance: instance}).shutdown(log)
		}
	}()
	input := caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: serverType}
	if err := caddy.ValidateAndExecuteDirectives(input, instance, false); err != nil {
		return nil, err
	}
	if p.context == nil {
		return nil, fmt.Errorf("set up CoreDNS: the Corefile does not begin with %s", directiveParts)
	}
	servers, err := p.context.MakeServers()
	if err != nil {
		return nil, err
	}
	// A server for each address that is listened on; all blocks have the same.
	if len(servers) != 1 {
		return nil, fmt.Errorf("server blocks for %d addresses; all must be for port %d, without bind", len(servers), dnsPort)
	}
	server, ok := servers[0].(*dnsserver.Server)
	if !ok {
		return nil, errors.New("a server block that is not for plain DNS")
	}
	for _, start := range append(instance.OnFirstStartup, instance.OnStartup...) {
		if err := start(); err != nil {
			return nil, err
		}
	}
	return &chain{server: server, config: p.config, instance: instance}, nil
}

// shutdown ends what the plugins of the chain started. Queries that are still in them
// may fail.
func (c *chain) shutdown(log hclog.Logger) {
	defer func() {
		if panicked := recover(); panicked != nil {
			log.Error("a plugin of CoreDNS panicked when it was shut down", "panic", panicked)
		}
	}()
	for _, err := range c.instance.ShutdownCallbacks() {
		log.Warn("shut down a plugin of CoreDNS", "error", err)
	}
}
