package traefik

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nearest"
	"github.com/traefik/paerser/file"
	ptypes "github.com/traefik/paerser/types"
	"github.com/traefik/traefik/v2/pkg/config/static"
	"github.com/traefik/traefik/v2/pkg/provider/acme"
	"github.com/traefik/traefik/v2/pkg/provider/kubernetes/crd"
	"github.com/traefik/traefik/v2/pkg/types"
)

const (
	// listenHTTP and listenHTTPS are where web and websecure listen, on the node's pod gateway. They lie
	// beside those of ingress.nginx, so that both can run.
	listenHTTP  = 8000
	listenHTTPS = 8443
	// settle is how long changes of the cluster are gathered before Traefik builds its routers anew. Short, since an
	// endpoint that went must not get requests; more than nothing, since building costs a moment for each router.
	settle = 100 * time.Millisecond
	// drain is how long open requests have to end when the component stops. A swap must take no longer than 3 s.
	drain = 2 * time.Second
)

// refused are the parts of the static configuration that are not the user's, and why.
var refused = map[string]string{
	"api":                   "k3m serves it on loopback; see `k3m component dashboard`",
	"certificatesResolvers": "use the key acme of this block",
	"experimental":          "plugins are code from the internet, and HTTP/3 and the Gateway API are not served",
	"global":                "k3m sends no statistics and looks for no versions",
	"log":                   "use the key logLevel of this block",
	"pilot":                 "Traefik Pilot is no more",
	"ping":                  "k3m knows itself how the component fares",
}

var (
	allowedStatic     = []string{"accessLog", "entryPoints", "hostResolver", "metrics", "providers", "serversTransport", "tracing"}
	refusedProviders  = map[string]string{"kubernetesIngress": "the component reads Ingresses itself", "kubernetesGateway": "the Gateway API is not served", "plugin": "plugins are code from the internet"}
	refusedEntryPoint = "address"
)

// base is Traefik's static configuration but for what only a node knows: addresses. A problem's path lies in the block.
func (c config) base() (*static.Configuration, *sdk.ConfigProblem) {
	s := &static.Configuration{
		EntryPoints: static.EntryPoints{},
		Providers: &static.Providers{
			ProvidersThrottleDuration: ptypes.Duration(settle),
			KubernetesCRD:             &crd.Provider{AllowEmptyServices: true},
		},
		// As Traefik's own command has it.
		ServersTransport: &static.ServersTransport{MaxIdleConnsPerHost: 200},
		Metrics:          &types.Metrics{Prometheus: &types.Prometheus{}},
	}
	s.Metrics.Prometheus.SetDefaults()
	if problem := c.addStatic(s); problem != nil {
		return nil, problem
	}
	s.Global = &static.Global{} // sends nothing, asks nobody
	s.API = &static.API{Insecure: true, Dashboard: true, DisableDashboardAd: true}
	// The node serves the figures among its own; there is no entry point for them.
	s.Metrics.Prometheus.EntryPoint, s.Metrics.Prometheus.ManualRouting = internalName, true
	s.Providers.KubernetesIngress = nil
	if p := s.Providers.KubernetesCRD; p != nil {
		p.Endpoint, p.Token, p.CertAuthFilePath = "", "", ""
		p.AllowCrossNamespace = p.AllowCrossNamespace || c.AllowCrossNamespace
		p.AllowExternalNameServices = p.AllowExternalNameServices || c.AllowExternalNameServices
	}
	if c.AccessLog.Enabled && s.AccessLog == nil {
		s.AccessLog = &types.AccessLog{}
		s.AccessLog.SetDefaults()
		s.AccessLog.Format = c.AccessLog.Format
	}
	c.addEntryPoints(s)
	c.addResolvers(s)
	if err := s.ValidateConfiguration(); err != nil {
		return nil, &sdk.ConfigProblem{Message: err.Error()}
	}
	return s, nil
}

// names are those of the entry points that requests of the cluster's clients come to.
func (c config) names() []string {
	return append([]string{webName, secureName}, slices.Sorted(maps.Keys(c.EntryPoints))...)
}

// addStatic reads the raw options with Traefik's own parser, which drops unknown keys of the first level and refuses
// others.
func (c config) addStatic(s *static.Configuration) (problem *sdk.ConfigProblem) {
	if len(c.Static) == 0 {
		return nil
	}
	var raw map[string]any
	if err := json.Unmarshal(c.Static, &raw); err != nil {
		return &sdk.ConfigProblem{Path: "static", Message: err.Error()}
	}
	if path, message := c.checkStatic(raw); path != "" {
		return &sdk.ConfigProblem{Path: path, Message: message}
	}
	defer func() {
		// The parser trusts that a person has written a file by its manual.
		if p := recover(); p != nil {
			problem = &sdk.ConfigProblem{Path: "static", Message: fmt.Sprintf("Traefik can't read it: %v", p)}
		}
	}()
	if err := file.DecodeContent(string(c.Static), ".json", s); err != nil {
		return &sdk.ConfigProblem{Path: "static", Message: "Traefik can't read it: " + err.Error()}
	}
	if s.Metrics.Prometheus == nil {
		s.Metrics.Prometheus = &types.Prometheus{}
		s.Metrics.Prometheus.SetDefaults()
	}
	return nil
}

func (c config) checkStatic(raw map[string]any) (path, message string) {
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if why, is := refused[key]; is {
			return "static." + key, why
		}
		if !slices.Contains(allowedStatic, key) {
			return "static." + key, "unknown key" + allowed(key, allowedStatic)
		}
	}
	providers, _ := raw["providers"].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(providers)) {
		if why, is := refusedProviders[key]; is {
			return "static.providers." + key, why
		}
	}
	entryPoints, _ := raw["entryPoints"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(entryPoints)) {
		if !slices.Contains(c.names(), name) {
			return "static.entryPoints." + name, "there is no such entry point, and one needs a port of the Service: add it to entryPoints of this block"
		}
		if options, ok := entryPoints[name].(map[string]any); ok {
			if _, given := options[refusedEntryPoint]; given {
				return "static.entryPoints." + name + "." + refusedEntryPoint, "k3m chooses it; ports are keys of this block"
			}
		}
	}
	return "", ""
}

// saysStatic tells whether the raw options have a key.
func (c config) saysStatic(path ...string) bool {
	var at any
	if json.Unmarshal(c.Static, &at) != nil {
		return false // there are none
	}
	for _, key := range path {
		options, _ := at.(map[string]any)
		found := false
		for name, value := range options {
			if strings.EqualFold(name, key) { // as Traefik's parser does
				at, found = value, true
			}
		}
		if !found {
			return false
		}
	}
	return true
}

// allowed ends a sentence about a wrong word: with the one that was probably meant, or with all that there are.
func allowed(word string, words []string) string {
	if near := nearest.To(word, words); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; allowed are " + strings.Join(words, ", ")
}

func (c config) addEntryPoints(s *static.Configuration) {
	for _, name := range c.names() {
		ep := s.EntryPoints[name]
		if ep == nil {
			ep = &static.EntryPoint{}
			ep.SetDefaults()
			s.EntryPoints[name] = ep
		}
		if ep.Transport.LifeCycle.GraceTimeOut == ptypes.Duration(static.DefaultGraceTimeout) {
			ep.Transport.LifeCycle.GraceTimeOut = ptypes.Duration(drain)
		}
		if !c.saysStatic("entryPoints", name, "http", "encodedCharacters") {
			// Traefik refuses requests with them, for the sake of applications that take a path's encoded parts for
			// others. The paths of Ingresses are matched with them as they came, so nothing gets past a rule by them.
			ep.HTTP.EncodedCharacters = static.EncodedCharacters{AllowEncodedSlash: true, AllowEncodedBackSlash: true,
				AllowEncodedSemicolon: true, AllowEncodedPercent: true, AllowEncodedQuestionMark: true, AllowEncodedHash: true}
		}
		if c.ForwardedHeaders.given() {
			ep.ForwardedHeaders.TrustedIPs, ep.ForwardedHeaders.Insecure = c.ForwardedHeaders.TrustedIPs, c.ForwardedHeaders.Insecure
		}
		if c.ProxyProtocol.given() {
			ep.ProxyProtocol = &static.ProxyProtocol{TrustedIPs: c.ProxyProtocol.TrustedIPs, Insecure: c.ProxyProtocol.Insecure}
		}
		if (name == secureName || c.EntryPoints[name].TLS) && ep.HTTP.TLS == nil {
			ep.HTTP.TLS = &static.TLSConfig{}
		}
		if name == webName && c.RedirectToHTTPS {
			to := &static.RedirectEntryPoint{}
			to.SetDefaults()
			to.To = fmt.Sprintf(":%d", orDefault(c.HTTPSPort, 443))
			ep.HTTP.Redirections = &static.Redirections{EntryPoint: to}
		}
	}
}

func (c config) addResolvers(s *static.Configuration) {
	for name, r := range c.ACME {
		a := &acme.Configuration{}
		a.SetDefaults()
		a.Email, a.PreferredChain, a.KeyType = r.Email, r.PreferredChain, "EC256"
		if r.KeyType != "" {
			a.KeyType = r.KeyType
		}
		if r.CAServer != "" {
			a.CAServer = r.CAServer
		}
		switch {
		case r.HTTPChallenge:
			a.HTTPChallenge = &acme.HTTPChallenge{EntryPoint: webName}
		case r.TLSChallenge:
			a.TLSChallenge = &acme.TLSChallenge{}
		case r.DNSChallenge != nil:
			a.DNSChallenge = &acme.DNSChallenge{Provider: r.DNSChallenge.Provider, Resolvers: r.DNSChallenge.Resolvers}
		}
		if s.CertificatesResolvers == nil {
			s.CertificatesResolvers = map[string]static.CertificateResolver{}
		}
		s.CertificatesResolvers[name] = static.CertificateResolver{ACME: a}
	}
}

// listener is an address that an entry point is served on beside its first one. Traefik has one address for an entry
// point, so it is an entry point of its own, which gets the routers of the one that it stands for.
type listener struct {
	name, of string
	config   *static.EntryPoint
	// host says that the address is the node's own, and may be taken.
	host bool
}

// place gives the entry points their addresses: the first of gateways, and a listener for each other, and for each of
// hosts.
func (c config) place(s *static.Configuration, gateways, hosts []netip.Addr) []listener {
	var all []listener
	for _, name := range c.names() {
		listen, public, udp := c.ports(name)
		ep := s.EntryPoints[name]
		at := func(addr netip.Addr, port uint16) string {
			address := netip.AddrPortFrom(addr, port).String()
			if udp {
				address += "/udp"
			}
			return address
		}
		add := func(addr netip.Addr, port uint16, host bool) {
			more := *ep
			more.Address = at(addr, port)
			l := listener{name: fmt.Sprintf("%s-%d", name, len(all)+2), of: name, config: &more, host: host}
			all = append(all, l)
			s.EntryPoints[l.name] = l.config
		}
		ep.Address = at(gateways[0], listen)
		for _, gateway := range gateways[1:] {
			add(gateway, listen, false)
		}
		if udp {
			continue // hostPorts is of TCP: the README says so
		}
		for _, host := range hosts {
			add(host, public, true)
		}
	}
	return all
}

// ports are the one that an entry point listens on, and the Service's.
func (c config) ports(name string) (listen, public uint16, udp bool) {
	switch name {
	case webName:
		return listenHTTP, orDefault(c.HTTPPort, 80), false
	case secureName:
		return listenHTTPS, orDefault(c.HTTPSPort, 443), false
	}
	e := c.EntryPoints[name]
	return e.listen(), e.Port, e.udp()
}
