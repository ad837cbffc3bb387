package ingress

import (
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
)

// twoClaims: of two Ingresses that claim one host and path the older has it, the newer gets an
// Event that names it, and keeps its other paths; when the older goes, the newer has it.
func twoClaims(s *scene, _ controller) {
	const url = "http://claimed.example"
	s.Run("the older wins", func(t *testing.T) {
		s := s.in(t)
		s.ingresses(simple("claimed-older", rule("claimed.example", "Prefix", "/", "a")))
		s.become(ask{url: url + "/", backend: "a"})
		s.differentSeconds()
		s.ingresses(simple("a-newer", rule("claimed.example", "Prefix", "/", "b"), rule("claimed.example", "Exact", "/exact", "d")))
		s.warned("Ingress", "a-newer", "DuplicatePath", "claimed.example", s.ns+"/claimed-older")
		s.become(ask{url: url + "/", backend: "a"}, ask{url: url + "/exact", backend: "d"})
	})
	s.Run("until it goes", func(t *testing.T) {
		s := s.in(t)
		s.ingresses(simple("left-older", rule("left.example", "Prefix", "/", "a")))
		s.differentSeconds()
		s.ingresses(simple("left-newer", rule("left.example", "Prefix", "/", "b")))
		s.warned("Ingress", "left-newer", "DuplicatePath", "left.example", s.ns+"/left-older")
		s.become(ask{url: "http://left.example/", backend: "a"})
		s.edit("left-older", func(ing *networkingv1.Ingress) { ing.Spec.Rules[0].Host = "elsewhere.example" })
		s.become(ask{url: "http://left.example/", backend: "b"}, ask{url: "http://elsewhere.example/", backend: "a"})
	})
}

// differentSeconds lets a second begin: the API server keeps the time of creation in seconds,
// and of two Ingresses of the same second the name decides.
func (s *scene) differentSeconds() {
	now := time.Now()
	select {
	case <-time.After(time.Until(now.Truncate(time.Second).Add(time.Second + 10*time.Millisecond))):
	case <-s.Context().Done():
	}
}
