package translate_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/translate"
)

func webCluster() cluster {
	return cluster{services: map[string]*corev1.Service{"web": service(corev1.ServicePort{Name: "web", Port: 80})},
		slices: map[string][]*discoveryv1.EndpointSlice{"web": {slice(8080, "web", endpoint("10.0.0.1", true, true, false))}}}
}

// A canary of another namespace would take that namespace's requests.
func TestCanaryOfAnotherNamespace(t *testing.T) {
	for namespace, taken := range map[string]bool{"default": true, "other": false} {
		prefix := networkingv1.PathTypePrefix
		canary := ingress("canary", 1, map[string]string{"canary": "true", "canary-weight": "100"}, "a.example", "/", prefix)
		canary.Namespace = namespace
		out := translate.Translate(webCluster().input(ingress("main", 2, nil, "a.example", "/", prefix), canary))
		for _, s := range out.Config.Servers {
			for _, loc := range s.Locations {
				if (loc.Canary != nil) != taken {
					t.Errorf("a canary of namespace %s: taken %v, want %v", namespace, loc.Canary != nil, taken)
				}
			}
		}
		if said := len(out.Problems) > 0 && strings.Contains(out.Problems[0].Message, "same namespace"); said == taken {
			t.Errorf("namespace %s: problems %v", namespace, out.Problems)
		}
	}
}

// Whom auth-url asks, the owner of an Ingress says: none of the node's own sockets and addresses.
func TestAuthURLOfTheNode(t *testing.T) {
	for _, c := range []struct {
		url, host, alias string
		ok               bool
	}{
		{"https://auth.example/", "a.example", "", true},
		{"https://auth.example$request_uri", "a.example", "", true},
		{"https://auth.example:8443$request_uri", "a.example", "", true},
		{"https://$host/auth", "a.example", "b.example", true},
		{"https://auth.${host}:8443/auth", "a.example", "", true},
		{"http://$host/auth", "*.a.example", "", true},
		{"http://unix:/run/x.sock:/", "a.example", "", false},
		{"http://UNIX:/run/x.sock:/", "a.example", "", false},
		{"http://127.0.0.1$request_uri", "a.example", "", false},
		{"http://127.0.0.1:10248$request_uri", "a.example", "", false},
		{"http://localhost:10248${request_uri}", "a.example", "", false},
		{"http://x@127.0.0.1:10248/", "a.example", "", false},
		{"http://$host:10248/", "a.example", "127.0.0.1", false},
		{"http://$host:10248/", "localhost", "", false},
		{"http://$host:/run/x.sock:/", "unix", "", false},
		{"http://u${host}:/run/x.sock:/", "nix", "", false},
		{"http://127.0.$host/", "0.1", "", false},
		{"http://$host/", "*.0.0.1", "", false},
	} {
		given := map[string]string{"auth-url": c.url}
		if c.alias != "" {
			given["server-alias"] = c.alias
		}
		out := translate.Translate(webCluster().input(ingress("x", 1, given, c.host, "/", networkingv1.PathTypePrefix)))
		for _, s := range out.Config.Servers {
			for _, loc := range s.Locations {
				if ok := loc.Denied == ""; ok != c.ok {
					t.Errorf("%s of host %s, alias %q: served %v, want %v; %v", c.url, c.host, c.alias, ok, c.ok, out.Problems)
				}
			}
		}
	}
}
