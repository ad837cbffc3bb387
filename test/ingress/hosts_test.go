package ingress

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// serviceAddress sees that the controller's Service has the node's address, and that class
// and traffic policy are as promised.
func serviceAddress(s *scene, c controller) {
	err := harness.Wait(within(s.T, patience), s.client.CoreV1().Services("kube-system"), c.service, func(svc *corev1.Service) (bool, string) {
		in := svc.Status.LoadBalancer.Ingress
		return len(in) == 1 && in[0].IP == s.address().String(), fmt.Sprintf("its addresses are %v", in)
	})
	if err != nil {
		s.Fatal(err)
	}
	svc, err := s.client.CoreV1().Services("kube-system").Get(s.Context(), c.service, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		s.Errorf("the Service is %s, %s", svc.Spec.Type, svc.Spec.ExternalTrafficPolicy)
	}
	class, err := s.client.NetworkingV1().IngressClasses().Get(s.Context(), c.name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	if class.Annotations[networkingv1.AnnotationIsDefaultIngressClass] != "true" {
		s.Errorf("the IngressClass is not the default: %v", class.Annotations)
	}
	s.become(ask{url: "http://nobody.example/", status: 404})
}

func exactHost(s *scene, _ controller) {
	s.ingresses(simple("exact", rule("exact.example", "Prefix", "/", "a"), rule("other.example", "Prefix", "/", "b")))
	s.become(
		ask{url: "http://exact.example/", backend: "a"},
		ask{url: "http://exact.example/deep/path", backend: "a"},
		ask{url: "http://EXACT.example/", backend: "a"},
		ask{url: "http://other.example/", backend: "b"},
		ask{url: "http://exact.example.other/", status: 404},
		ask{url: "http://sub.exact.example/", status: 404},
		ask{url: "http://example/", status: 404},
		ask{url: "http://" + s.address().String() + "/", status: 404},
	)
}

func wildcardHost(s *scene, _ controller) {
	s.ingresses(simple("wild", rule("*.wild.example", "Prefix", "/", "a")))
	s.become(
		ask{url: "http://one.wild.example/", backend: "a"},
		ask{url: "http://two.wild.example/x", backend: "a"},
		ask{url: "http://with-dash.wild.example/", backend: "a"},
		// A wildcard stands for one label.
		ask{url: "http://deep.one.wild.example/", status: 404},
		ask{url: "http://wild.example/", status: 404},
		ask{url: "http://otherwild.example/", status: 404},
	)
}

func exactBesideWildcard(s *scene, _ controller) {
	s.ingresses(simple("beside-wild", rule("*.beside.example", "Prefix", "/", "a"), rule("*.beside.example", "Prefix", "/long/path", "c")) + "---\n" +
		simple("beside-exact", rule("one.beside.example", "Prefix", "/", "b")))
	s.become(
		ask{url: "http://one.beside.example/", backend: "b"},
		ask{url: "http://one.beside.example/long/path/of/the/wildcard", backend: "b"},
		ask{url: "http://two.beside.example/", backend: "a"},
		ask{url: "http://two.beside.example/long/path", backend: "c"},
	)
}

func noHost(s *scene, _ controller) {
	s.ingresses("metadata: {name: no-host}\nspec: {rules: [{http: {paths: [{path: /no-host, pathType: Prefix, backend: {service: {name: a, port: {number: 80}}}}]}}]}\n---\n" +
		simple("with-host", rule("with-host.example", "Prefix", "/", "b")))
	s.become(
		ask{url: "http://any.example/no-host", backend: "a"},
		ask{url: "http://" + s.address().String() + "/no-host", backend: "a"},
		ask{url: "http://any.example/", status: 404},
		ask{url: "http://with-host.example/no-host", backend: "b"},
	)
}

// defaultBackend is what gets the requests that no rule is for. It must be gone for all others.
func defaultBackend(s *scene, _ controller) {
	s.Run("of an Ingress without rules", func(t *testing.T) {
		s := s.in(t)
		s.ingresses("metadata: {name: default}\nspec: {defaultBackend: {service: {name: d, port: {number: 80}}}}\n---\n" +
			simple("ruled", rule("ruled.example", "Exact", "/only", "a")))
		s.become(
			ask{url: "http://nobody-at-all.example/", backend: "d"},
			ask{url: "http://nobody-at-all.example/with/path", backend: "d"},
			ask{url: "http://" + s.address().String() + "/", backend: "d"},
			ask{url: "http://ruled.example/only", backend: "a"},
		)
	})
	s.Run("beside rules", func(t *testing.T) {
		s := s.in(t)
		s.ingresses("metadata: {name: default-and-rules}\nspec: {defaultBackend: {service: {name: c, port: {number: 80}}}, rules: [" +
			rule("both.example", "Exact", "/a", "a") + "]}\n")
		s.become(
			ask{url: "http://both.example/a", backend: "a"},
			ask{url: "http://both.example/b", backend: "c"},
		)
	})
	s.become(ask{url: "http://nobody-at-all.example/", status: 404}, ask{url: "http://both.example/b", status: 404})
}

// changed edits an Ingress: its rules follow, and what is deleted is gone.
func changed(s *scene, _ controller) {
	s.ingresses(simple("changed", rule("changed.example", "Prefix", "/", "a")))
	s.become(ask{url: "http://changed.example/", backend: "a"})
	s.edit("changed", func(ing *networkingv1.Ingress) {
		ing.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name = "b"
		ing.Spec.Rules = append(ing.Spec.Rules, *ing.Spec.Rules[0].DeepCopy())
		ing.Spec.Rules[1].Host = "added.example"
	})
	s.become(ask{url: "http://changed.example/", backend: "b"}, ask{url: "http://added.example/", backend: "b"})
	s.edit("changed", func(ing *networkingv1.Ingress) { ing.Spec.Rules = ing.Spec.Rules[1:] })
	s.become(ask{url: "http://added.example/", backend: "b"}, ask{url: "http://changed.example/", status: 404})
}

// edit changes an Ingress.
func (s *scene) edit(name string, change func(*networkingv1.Ingress)) {
	s.Helper()
	api := s.client.NetworkingV1().Ingresses(s.ns)
	err := keepTrying(within(s.T, patience), func(ctx context.Context) error { // its status may be written meanwhile
		ing, err := api.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(ing)
		_, err = api.Update(ctx, ing, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
}
