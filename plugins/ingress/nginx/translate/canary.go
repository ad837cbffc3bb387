package translate

import (
	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"

	networkingv1 "k8s.io/api/networking/v1"
)

// addCanary gives paths of other Ingresses a second backend.
func (b *builder) addCanary(ing *ingress) {
	if ing.said.Denied != "" {
		return
	}
	for _, rule := range ing.Spec.Rules {
		host, err := value.Host(rule.Host)
		if rule.Host == "" {
			host, err = "", nil
		}
		if err != nil || rule.HTTP == nil {
			b.problem(ing, BadRule, "rule %s: a canary needs a host and paths of another Ingress; it is left out", value.Show(rule.Host))
			continue
		}
		for i := range rule.HTTP.Paths {
			b.canaryPath(ing, host, &rule.HTTP.Paths[i])
		}
	}
}

// canaryPath finds the path that a canary's path belongs to.
func (b *builder) canaryPath(ing *ingress, host string, path *networkingv1.HTTPIngressPath) {
	s := b.servers[host]
	if s == nil {
		b.problem(ing, BadRule, "no other Ingress serves the host %s, so that there is nothing to be the canary of", value.Show(host))
		return
	}
	kind := networkingv1.PathTypeImplementationSpecific
	if path.PathType != nil {
		kind = *path.PathType
	}
	// The main Ingress says whether paths are expressions.
	var main *place
	for _, regex := range []bool{false, true} {
		as := &ingress{said: &annotations.Annotations{UseRegex: regex}}
		if text, match, err := readPath(as, path.Path, kind); err == nil && main == nil {
			main = s.claims[claim(text, match)]
		}
	}
	switch {
	case main == nil:
		b.problem(ing, BadRule, "no other Ingress serves %s%s, so that there is nothing to be the canary of", value.Show(host),
			value.Show(path.Path))
		return
	case main.Owner.Namespace != ing.Namespace:
		// With all the weight it would be who takes another namespace's requests.
		b.problem(ing, BadRule, "path %s is of Ingress %s; a canary must be of the same namespace; it is left out", value.Show(path.Path), main.Owner)
		return
	case main.Canary != nil:
		b.problem(ing, DuplicatePath, "path %s has a canary already; this one is left out", value.Show(path.Path))
		return
	case path.Backend.Service == nil:
		b.problem(ing, BadBackend, "path %s: a backend must be a Service; the canary is left out", value.Show(path.Path))
		return
	case main.said.Policy.Protocol != ing.said.Policy.Protocol:
		b.problem(ing, BadAnnotation, "annotation %sbackend-protocol: a canary speaks what its main Ingress speaks, %s",
			annotations.Prefix, main.said.Policy.Protocol)
	}
	backend := b.backend(ing, main.said, path.Backend.Service)
	if main.Backend.External != "" || backend.External != "" {
		b.problem(ing, BadBackend, "path %s: a Service of type ExternalName has no canary and is none; it is left out", value.Show(path.Path))
		return
	}
	// Without an endpoint there is no canary: who would have met it meets what is there.
	if backend.Empty() {
		return
	}
	canary := *ing.said.Canary
	canary.Backend = backend
	main.Canary = &canary
}
