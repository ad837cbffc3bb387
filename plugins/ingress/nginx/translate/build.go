package translate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// builder is one translation at work.
type builder struct {
	in        Input
	servers   map[string]*server // by the first host; "" is the default one
	upstreams map[string]*model.Upstream
	limits    map[string]*model.Limit
	// policies find the annotations that a location's policy is of.
	policies map[*model.Policy]*annotations.Annotations
	problems []Problem
}

// server is a model's server in the making.
type server struct {
	*model.Server
	// claims are the Ingresses that have a path, by the path and how it is compared.
	claims map[string]*place
	// aliases and www wait until all hosts are known.
	aliases []string
	www     bool
}

// place is a location with what its Ingress said.
type place struct {
	*model.Location
	said *annotations.Annotations
}

// Translate makes the model. It never fails: what can't be served is left out, or answers
// 503, with a problem.
func Translate(in Input) Output {
	if in.Settings == nil {
		in.Settings = settings.Default()
	}
	b := &builder{in: in, servers: map[string]*server{}, upstreams: map[string]*model.Upstream{}, limits: map[string]*model.Limit{},
		policies: map[*model.Policy]*annotations.Annotations{}}
	ingresses := slices.Clone(in.Ingresses)
	slices.SortFunc(ingresses, older)
	b.server("", types.NamespacedName{})
	var canaries []*ingress
	for _, object := range ingresses {
		ing := b.read(object)
		if ing.said.Canary != nil {
			canaries = append(canaries, ing)
			continue
		}
		b.add(ing)
	}
	for _, ing := range canaries {
		b.addCanary(ing)
	}
	if in.Cache != nil {
		in.Cache.tidy()
	}
	return b.finish()
}

// older sorts Ingresses by age, so that the first to claim something is the oldest.
func older(a, b *networkingv1.Ingress) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name))
}

// ingress is an Ingress with its annotations read.
type ingress struct {
	*networkingv1.Ingress
	id     types.NamespacedName
	said   *annotations.Annotations
	policy *model.Policy
}

func (b *builder) read(object *networkingv1.Ingress) *ingress {
	ing := &ingress{Ingress: object, id: types.NamespacedName{Namespace: object.Namespace, Name: object.Name}}
	said, problems := annotations.Parse(object.Annotations, b.in.Options.Snippets)
	for _, p := range problems {
		reason := BadAnnotation
		switch {
		case p.Snippet:
			reason = SnippetsOff
		case p.Unsupported:
			reason = Unsupported
		}
		b.problem(ing, reason, "annotation %s%s: %s", annotations.Prefix, p.Name, p.Message)
	}
	ing.said, ing.policy = said, &said.Policy
	b.policies[ing.policy] = said
	if said.Canary == nil {
		b.policy(ing)
		b.anyHost(ing)
	}
	return ing
}

// maxProblems bounds what is said of one translation; who has more mends some first.
const maxProblems = 10000

func (b *builder) problem(ing *ingress, reason Reason, format string, args ...any) {
	if len(b.problems) < maxProblems {
		b.problems = append(b.problems, Problem{Ingress: ing.id, Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
}

// server finds or makes a host's.
func (b *builder) server(host string, owner types.NamespacedName) *server {
	s := b.servers[host]
	if s == nil {
		s = &server{Server: &model.Server{Owner: owner}, claims: map[string]*place{}}
		if host != "" {
			s.Hosts = []string{host}
		}
		b.servers[host] = s
	}
	return s
}

// anyHost denies an Ingress that asks the request's own host whether a request may come in, where
// a request may be for any host: its client would be asked about itself.
func (b *builder) anyHost(ing *ingress) {
	auth := ing.policy.Auth
	if auth == nil || !strings.Contains(annotations.Authority(auth.URL), "host") || !strings.Contains(annotations.Authority(auth.URL), "$") {
		return
	}
	if len(ing.Spec.Rules) > 0 && !slices.ContainsFunc(ing.Spec.Rules, func(r networkingv1.IngressRule) bool { return r.Host == "" }) {
		return
	}
	ing.said.Denied = "auth-url"
	b.problem(ing, BadAnnotation, "annotation %sauth-url: it asks $host, and an Ingress without rules, or a rule without a host, lets clients name any; "+
		"the Ingress's paths answer 503 until it names its host", annotations.Prefix)
}

// add takes an Ingress's rules.
func (b *builder) add(ing *ingress) {
	if len(ing.Spec.Rules) == 0 {
		if ing.Spec.DefaultBackend == nil {
			return
		}
		b.fallback(b.servers[""], ing)
		return
	}
	for _, rule := range ing.Spec.Rules {
		host := ""
		if rule.Host != "" {
			var err error
			if host, err = value.Host(rule.Host); err != nil {
				b.problem(ing, BadRule, "rule: %v; it is left out", err)
				continue
			}
		}
		s := b.server(host, ing.id)
		if rule.HTTP != nil {
			for i := range rule.HTTP.Paths {
				b.addPath(s, ing, host, &rule.HTTP.Paths[i])
			}
		}
		b.fallback(s, ing)
		b.host(s, ing)
	}
}

// host takes what an Ingress says of a host as a whole; the oldest wins.
func (b *builder) host(s *server, ing *ingress) {
	if s.AppRoot == "" {
		s.AppRoot = ing.said.AppRoot
	}
	if s.Ciphers == "" {
		s.Ciphers = ing.said.Ciphers
	}
	if s.PreferServerCiphers == nil {
		s.PreferServerCiphers = ing.said.PreferServer
	}
	switch {
	case ing.said.ServerSnippet == "" || s.Snippet == ing.said.ServerSnippet:
	case s.Snippet != "":
		b.problem(ing, BadAnnotation, "annotation %sserver-snippet: host %s has one already, of an older Ingress; this one is ignored",
			annotations.Prefix, hostOf(s))
	default:
		s.Snippet = ing.said.ServerSnippet
	}
	s.www = s.www || ing.said.FromToWWW
	for _, alias := range ing.said.Aliases {
		if !slices.Contains(s.aliases, alias) {
			s.aliases = append(s.aliases, alias)
		}
	}
	b.tls(s, ing)
}

// fallback takes an Ingress's default backend for a host's other paths.
func (b *builder) fallback(s *server, ing *ingress) {
	if ing.Spec.DefaultBackend == nil || s.Fallback != nil {
		return
	}
	s.Fallback = b.location(ing, ing.Spec.DefaultBackend, "/", model.Prefix)
}

// location makes a location with its backend.
func (b *builder) location(ing *ingress, backend *networkingv1.IngressBackend, path string, match model.Match) *model.Location {
	loc := &model.Location{Path: path, Match: match, Policy: ing.policy, Denied: ing.said.Denied, Owner: ing.id}
	if backend.Service == nil {
		b.problem(ing, BadBackend, "path %s: a backend must be a Service; the path answers 503", value.Show(path))
		return loc
	}
	loc.Service, loc.Port = backend.Service.Name, portText(backend.Service.Port)
	loc.Backend = b.backend(ing, ing.said, backend.Service)
	if loc.Backend.Empty() && ing.said.DefaultBackend != "" {
		loc.Backend = b.firstPort(ing, ing.Namespace, ing.said.DefaultBackend)
	}
	return loc
}

func portText(port networkingv1.ServiceBackendPort) string {
	if port.Name != "" {
		return port.Name
	}
	return fmt.Sprint(port.Number)
}

func hostOf(s *server) string {
	if len(s.Hosts) == 0 {
		return "*"
	}
	return s.Hosts[0]
}

// id makes a short name of what it stands for: 96 bits, so that nobody finds two of one name.
func id(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:12])
}
