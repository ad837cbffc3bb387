package ingress

import "testing"

// TestConformance tries each controller's features in a cluster of its own, one after another.
// The last of them disable it, and enable it otherwise.
func TestConformance(t *testing.T) {
	for _, c := range controllers {
		t.Run(c.name, func(t *testing.T) {
			s := boot(t, c.name, file([]controller{c}, c.block()), c.id(), "dns.coredns", "servicelb.nodeip")
			s.withBackends()
			for _, f := range features {
				t.Run(f.name, func(t *testing.T) { f.try(s.in(t), c) })
			}
		})
	}
}

// features are what each controller must do.
var features = []struct {
	name string
	try  func(*scene, controller)
}{
	{"address of the Service", serviceAddress},
	{"an exact host", exactHost},
	{"a wildcard host", wildcardHost},
	{"an exact host beside a wildcard", exactBesideWildcard},
	{"no host", noHost},
	{"an exact path", exactPath},
	{"a path prefix", prefixPath},
	{"which path wins", pathPrecedence},
	{"implementation-specific path", specificPath},
	{"paths of two Ingresses", pathsOfTwo},
	{"default backend", defaultBackend},
	{"TLS by SNI", tlsBySNI},
	{"a renewed certificate", renewedCertificate},
	{"a wildcard certificate", wildcardCertificate},
	{"bad TLS secrets", badSecrets},
	{"IngressClass", ingressClass},
	{"status", ingressStatus},
	{"load balancing", loadBalancing},
	{"a named port", namedPort},
	{"an external name", externalName},
	{"no endpoints", noEndpoints},
	{"no such Service", noService},
	{"headers for the backend", forwardedHeaders},
	{"a large request", largeRequest},
	{"a WebSocket", webSocket},
	{"HTTP/2", http2},
	{"gRPC", grpcBackend},
	{"two Ingresses claim one path", twoClaims},
	{"an Ingress is changed", changed},
	{"endpoints reach traffic", endpoints},
	{"a rollout loses no request", rollout},
	{"kill -9", killed},
	{"a thousand Ingresses", thousand},
	{"disabled, it leaves nothing", leavesNothing},
	{"ports that a process holds", heldPorts},
	{"without a service load balancer", noLoadBalancer},
}
