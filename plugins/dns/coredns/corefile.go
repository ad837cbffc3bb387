package coredns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	corednsplugin "github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"
)

// answerWithin is how long a name outside the cluster may take before the answer is
// SERVFAIL: all upstreams together, and less than the five seconds after which resolvers
// in pods ask again.
const answerWithin = 2 * time.Second

// shortestTry is the least that one upstream of several is given.
const shortestTry = 500 * time.Millisecond

// maxForwarding bounds the queries that wait for upstreams at once; more are refused.
const maxForwarding = 2000

// corefile is all that a Corefile is made of.
type corefile struct {
	config    config
	domain    string
	upstreams []netip.AddrPort
	custom    *custom
}

// render writes it down. All blocks are for port 53 of whatever the sockets listen on.
func (f corefile) render() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(".:%d {", dnsPort)
	line("    %s", directiveParts)
	line("    prometheus")
	if !f.custom.overrides("errors") {
		// An upstream that is away must not fill the log.
		line("    errors {")
		line(`        consolidate 30s "(timeout|refused|unreachable|no healthy proxies|concurrent queries exceeded)" warning`)
		line("    }")
	}
	if f.config.LogQueries && !f.custom.overrides("log") {
		line("    log")
	}
	if !f.custom.overrides("loadbalance") {
		line("    loadbalance")
	}
	if f.config.CacheSeconds > 0 && !f.custom.overrides("cache") {
		line("    cache %d {", f.config.CacheSeconds)
		line("        success %d", f.config.CacheEntries)
		line("        denial %d", f.config.CacheEntries)
		// The cluster's names are in memory already, and change at once.
		line("        disable success %s", quote(f.domain))
		line("        disable denial %s", quote(f.domain))
		line("        servfail 1s")
		line("    }")
	}
	line("    %s", directiveNodes)
	if !f.custom.overrides(anyAnswer) {
		line("    %s", directiveClusterFirst)
	}
	line("    %s", directiveCluster)
	b.WriteString(f.custom.override())
	if !f.custom.overrides("forward .") {
		f.renderForward(line)
	}
	line("}")
	b.WriteString(f.custom.servers())
	return b.String()
}

func (f corefile) renderForward(line func(string, ...any)) {
	if len(f.upstreams) == 0 {
		line("    %s", directiveNoUpstream)
		return
	}
	line("    forward . %s {", joinUpstreams(f.upstreams))
	line("        max_concurrent %d", maxForwarding)
	line("        read_timeout %s", tryTime(len(f.upstreams)))
	line("        max_connect_attempts %d", min(len(f.upstreams), int(answerWithin/shortestTry)))
	line("        failfast_all_unhealthy_upstreams")
	line("    }")
}

func joinUpstreams(upstreams []netip.AddrPort) string {
	var texts []string
	for _, u := range upstreams {
		texts = append(texts, u.String())
	}
	return strings.Join(texts, " ")
}

// tryTime is how long one of n upstreams is waited for.
func tryTime(n int) time.Duration { return max(answerWithin/time.Duration(n), shortestTry) }

// noUpstream is the end of a chain that has nothing to forward to: it says that it can't
// tell, so that nobody remembers that there is no such name.
type noUpstream struct{}

func setupNoUpstream(c *caddy.Controller) error {
	dnsserver.GetConfig(c).AddPlugin(func(corednsplugin.Handler) corednsplugin.Handler { return noUpstream{} })
	return nil
}

// Name implements plugin.Handler.
func (noUpstream) Name() string { return directiveNoUpstream }

// ServeDNS implements plugin.Handler.
func (noUpstream) ServeDNS(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
	return dns.RcodeServerFailure, nil
}
