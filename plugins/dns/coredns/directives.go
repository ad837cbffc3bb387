package coredns

import (
	"fmt"
	"sync"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	// The plugins of CoreDNS that a Corefile of this component may name, and no others:
	// each is a directive below.
	_ "github.com/coredns/coredns/plugin/acl"
	_ "github.com/coredns/coredns/plugin/any"
	_ "github.com/coredns/coredns/plugin/bufsize"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/cancel"
	_ "github.com/coredns/coredns/plugin/chaos"
	_ "github.com/coredns/coredns/plugin/dns64"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/header"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/local"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/minimal"
	_ "github.com/coredns/coredns/plugin/nsid"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/whoami"
)

// serverType is CoreDNS's name in caddy's registry.
const serverType = "dns"

// directives are all that a Corefile here may hold, in the order in which a query passes
// them: CoreDNS's own order (its plugin.cfg), with k3m's in their places.
var directives = []string{
	directiveParts,
	"metadata",
	"cancel",
	"nsid",
	"bufsize",
	"prometheus",
	"errors",
	"log",
	"local",
	"dns64",
	"any",
	"chaos",
	"loadbalance",
	"rewrite",
	"acl",
	// Before the cache: what they answer is in memory, and changes at once.
	directiveNodes,
	directiveClusterFirst,
	"cache",
	"header",
	"minimal",
	"template",
	"hosts",
	"kubernetes",
	directiveCluster,
	"forward",
	directiveNoUpstream,
	"whoami",
}

// The directives of this package. None of them takes an argument, and none may be named
// in coredns-custom.
const (
	// directiveParts remembers what CoreDNS makes of a Corefile, for Go code that has no
	// other way to it.
	directiveParts = "k3m"
	// directiveNodes answers for the names of nodes.
	directiveNodes = "nodes"
	// directiveCluster answers for the cluster's names with the one kubernetes plugin of
	// the process.
	directiveCluster = "cluster"
	// directiveClusterFirst does so for the names of the cluster's domain before any plugin
	// is asked that could only pass them on.
	directiveClusterFirst = "clusterfirst"
	// directiveNoUpstream stands where forward does when there is nothing to forward to.
	directiveNoUpstream = "noupstream"
)

// own are the directives that are set up here. prometheus is CoreDNS's plugin without its
// listener.
var own = map[string]caddy.SetupFunc{
	directiveParts:        setupParts,
	directiveNodes:        setupNodes,
	directiveCluster:      setupCluster,
	directiveClusterFirst: setupClusterFirst,
	directiveNoUpstream:   setupNoUpstream,
	"prometheus":          setupPrometheus,
}

// register makes the directives known to caddy, whose registry is the process's: once,
// and not before a component runs.
//
// caddy keeps a server's type in an unexported field of an Instance, so Instances that it
// did not make itself have none, and find those directives alone that are registered for
// any type. That is why each is registered so, too.
var register = sync.OnceValue(func() error {
	if err := dnsserver.SetDirectives(directives); err != nil {
		return fmt.Errorf("order the directives of CoreDNS: %w", err)
	}
	for _, name := range directives {
		action := own[name]
		if action == nil {
			var err error
			if action, err = caddy.DirectiveAction(serverType, name); err != nil {
				return fmt.Errorf("find CoreDNS's plugin %s: %w", name, err)
			}
		}
		caddy.RegisterPlugin(name, caddy.Plugin{Action: action})
	}
	return nil
})
