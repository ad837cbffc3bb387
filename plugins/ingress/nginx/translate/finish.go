package translate

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// finish settles what depends on all Ingresses and puts everything in order.
func (b *builder) finish() Output {
	names := slices.Sorted(maps.Keys(b.servers)) // "" sorts first
	taken := map[string]bool{}
	for _, name := range names {
		taken[name] = true
	}
	b.aliases(names, taken)
	cfg := &model.Config{Certificate: b.in.Certificate}
	standard := b.standard()
	for _, name := range names {
		s := b.servers[name]
		order(s.Locations)
		if s.Fallback == nil && standard != nil {
			copied := *standard
			s.Fallback = &copied
		}
		b.redirects(s)
		b.nodeItself(s)
		cfg.Servers = append(cfg.Servers, s.Server)
	}
	for _, name := range names {
		if other := b.other(b.servers[name], taken); other != nil {
			cfg.Servers = append(cfg.Servers, other)
		}
	}
	slices.SortFunc(cfg.Servers[1:], func(a, b *model.Server) int { return strings.Compare(a.Hosts[0], b.Hosts[0]) })
	for _, name := range slices.Sorted(maps.Keys(b.upstreams)) {
		cfg.Upstreams = append(cfg.Upstreams, b.upstreams[name])
	}
	for _, name := range slices.Sorted(maps.Keys(b.limits)) {
		cfg.Limits = append(cfg.Limits, b.limits[name])
	}
	slices.SortStableFunc(b.problems, func(x, y Problem) int {
		return cmp.Or(strings.Compare(x.Ingress.Namespace, y.Ingress.Namespace), strings.Compare(x.Ingress.Name, y.Ingress.Name))
	})
	return Output{Config: cfg, Problems: slices.CompactFunc(b.problems, func(x, y Problem) bool { return x == y })}
}

// aliases gives servers their other names, where no server has them.
func (b *builder) aliases(names []string, taken map[string]bool) {
	for _, name := range names {
		s := b.servers[name]
		for _, alias := range s.aliases {
			if taken[alias] || name == "" {
				if alias != name {
					b.problem(&ingress{id: s.Owner}, BadAnnotation, "annotation %sserver-alias: the host %s is served already", annotations.Prefix, alias)
				}
				continue
			}
			taken[alias] = true
			s.Hosts = append(s.Hosts, alias)
		}
	}
}

// nodeItself denies paths whose requests are asked for at their own host, where one of the host's
// names is the node's: an alias may be an address.
func (b *builder) nodeItself(s *server) {
	for _, loc := range append(slices.Clone(s.Locations), s.Fallback) {
		if loc == nil || loc.Policy.Auth == nil || !annotations.AsksHost(loc.Policy.Auth.URL) {
			continue
		}
		for _, host := range s.Hosts {
			if err := annotations.AskedOf(loc.Policy.Auth.URL, host); err != nil {
				loc.Denied = "auth-url"
				b.problem(&ingress{id: loc.Owner}, BadAnnotation, "annotation %sauth-url: it asks $host, and for %s %v; path %s answers 503",
					annotations.Prefix, value.Show(host), err, value.Show(loc.Path))
			}
		}
	}
}

// standard answers what no rule takes: an Ingress without rules, or the component's default
// backend.
func (b *builder) standard() *model.Location {
	if own := b.servers[""].Fallback; own != nil {
		return own
	}
	ref := b.in.DefaultBackend
	if ref == nil {
		return nil
	}
	loc := &model.Location{Path: "/", Match: model.Prefix, Policy: &model.Policy{Protocol: model.HTTP}, Service: ref.Name, Port: ref.Port}
	var err error
	if loc.Backend, err = b.resolve(ref.Namespace, ref.Name, ref.Port, &annotations.Annotations{}); err != nil {
		b.problem(&ingress{}, reasonOf(err), "the default backend: %v", err)
	}
	return loc
}

// redirects says which locations send clients to HTTPS.
func (b *builder) redirects(s *server) {
	set := b.in.Settings
	for _, loc := range append(slices.Clone(s.Locations), s.Fallback) {
		if loc == nil || slices.ContainsFunc(set.NoRedirect, func(prefix string) bool { return strings.HasPrefix(loc.Path, prefix) }) {
			continue
		}
		said := b.policies[loc.Policy]
		redirect, force := set.SSLRedirect, set.ForceSSLRedirect
		if said != nil && said.SSLRedirect != nil {
			redirect = *said.SSLRedirect
		}
		if said != nil && said.ForceRedirect != nil {
			force = *said.ForceRedirect
		}
		loc.RedirectHTTPS = force || redirect && s.HTTPS
	}
}

// other is the server of example.com or www.example.com that sends clients to the other one;
// nil for none.
func (b *builder) other(s *server, taken map[string]bool) *model.Server {
	host := hostOf(s)
	if !s.www || strings.HasPrefix(host, "*") {
		return nil
	}
	name, had := strings.CutPrefix(host, "www.")
	if !had {
		name = "www." + host
	}
	if taken[name] {
		return nil
	}
	taken[name] = true
	return &model.Server{Hosts: []string{name}, RedirectTo: host, Certificate: s.Certificate, HTTPS: s.HTTPS, Owner: s.Owner}
}
