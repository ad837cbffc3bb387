package translate

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
)

// References are the objects that an Ingress's translation asks for. A controller that
// keeps only these in its caches has all that Translate needs.
type References struct {
	// Services are its backends, with their EndpointSlices.
	Services []types.NamespacedName
	// TLS are secrets of certificates.
	TLS []types.NamespacedName
	// Users are secrets of names and passwords.
	Users []types.NamespacedName
}

// ReferencesOf reads an Ingress. It is cheap, answers also for an Ingress that is wrong, and
// may name an object twice. What lies in another namespace is never asked for.
func ReferencesOf(ing *networkingv1.Ingress) References {
	var refs References
	named := func(name string) types.NamespacedName {
		return types.NamespacedName{Namespace: ing.Namespace, Name: name}
	}
	backend := func(b *networkingv1.IngressBackend) {
		if b != nil && b.Service != nil {
			refs.Services = append(refs.Services, named(b.Service.Name))
		}
	}
	backend(ing.Spec.DefaultBackend)
	for _, rule := range ing.Spec.Rules {
		if rule.HTTP == nil {
			continue
		}
		for i := range rule.HTTP.Paths {
			backend(&rule.HTTP.Paths[i].Backend)
		}
	}
	for _, entry := range ing.Spec.TLS {
		if entry.SecretName != "" {
			refs.TLS = append(refs.TLS, named(entry.SecretName))
		}
	}
	if name := strings.TrimSpace(ing.Annotations[annotations.Prefix+"default-backend"]); name != "" {
		refs.Services = append(refs.Services, named(name))
	}
	if text := strings.TrimSpace(ing.Annotations[annotations.Prefix+"auth-secret"]); text != "" {
		if name := secretOf(ing.Namespace, text); name.Namespace == ing.Namespace && name.Name != "" {
			refs.Users = append(refs.Users, name)
		}
	}
	return refs
}
