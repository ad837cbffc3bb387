package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
	"github.com/k3m-io/k3m/test/images/echo/answer"
)

// ofClass is an Ingress with a class.
func ofClass(name, class, host, backend string) string {
	return fmt.Sprintf("metadata: {name: %s}\nspec: {ingressClassName: %s, rules: [%s]}\n", name, class, rule(host, "Prefix", "/", backend))
}

// ingressClass: Ingresses of the class, by field or by the old annotation, are served, those of
// another are not, and one that changes its class is no longer.
func ingressClass(s *scene, c controller) {
	s.ingresses(ofClass("class-own", c.name, "own.class.example", "a") + "---\n" + ofClass("class-other", "other", "other.class.example", "b") + "---\n" +
		fmt.Sprintf("metadata: {name: class-old, annotations: {kubernetes.io/ingress.class: %s}}\nspec: {rules: [%s]}\n", c.name, rule("old.class.example", "Prefix", "/", "c")) + "---\n" +
		fmt.Sprintf("metadata: {name: class-old-other, annotations: {kubernetes.io/ingress.class: other}}\nspec: {rules: [%s]}\n", rule("old-other.class.example", "Prefix", "/", "c")))
	s.become(
		ask{url: "http://own.class.example/", backend: "a"},
		ask{url: "http://old.class.example/", backend: "c"},
		ask{url: "http://other.class.example/", status: 404},
		ask{url: "http://old-other.class.example/", status: 404},
	)
	s.published("class-own", s.address().String())
	s.edit("class-own", func(ing *networkingv1.Ingress) { *ing.Spec.IngressClassName = "other" })
	s.become(ask{url: "http://own.class.example/", status: 404})
	s.edit("class-other", func(ing *networkingv1.Ingress) { *ing.Spec.IngressClassName = c.name })
	s.become(ask{url: "http://other.class.example/", backend: "b"})
	s.published("class-other", s.address().String())

	// Without a class the API server puts the default one.
	s.ingresses(simple("class-default", rule("default.class.example", "Prefix", "/", "d")))
	ing, err := s.client.NetworkingV1().Ingresses(s.ns).Get(s.Context(), "class-default", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	if ing.Spec.IngressClassName == nil || *ing.Spec.IngressClassName != c.name {
		s.Errorf("the class of an Ingress without one is %v", ing.Spec.IngressClassName)
	}
	s.become(ask{url: "http://default.class.example/", backend: "d"})
}

// published waits until an Ingress's status has the address as its only one, or, with "", none.
func (s *scene) published(name, address string) {
	s.Helper()
	err := harness.Wait(within(s.T, patience), s.client.NetworkingV1().Ingresses(s.ns), name, func(ing *networkingv1.Ingress) (bool, string) {
		got := ""
		for _, in := range ing.Status.LoadBalancer.Ingress {
			got += in.IP + in.Hostname
		}
		return got == address, fmt.Sprintf("its addresses are %v", ing.Status.LoadBalancer.Ingress)
	})
	if err != nil {
		s.Errorf("wait for Ingress %s to have the address %q: %v", name, address, err)
	}
}

func ingressStatus(s *scene, _ controller) {
	s.ingresses(simple("status", rule("status.example", "Prefix", "/", "a")) + "---\n" + ofClass("status-other", "other", "status-other.example", "a"))
	s.published("status", s.address().String())
	s.published("status-other", "")
}

// loadBalancing asks until every pod has answered.
func loadBalancing(s *scene, _ controller) {
	s.ingresses(simple("balanced", rule("balanced.example", "Prefix", "/", "many")))
	const url = "http://balanced.example/"
	s.become(ask{url: url, backend: "many"})
	for name, transport := range map[string]*http.Transport{"one connection": s.web, "many connections": s.outside.Transport(s.address())} {
		s.Run(name, func(t *testing.T) {
			transport.DisableKeepAlives = name == "many connections"
			client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
			seen := map[string]int{}
			eventually(t, "all pods answer", func(ctx context.Context) error {
				for range 10 * podCount {
					got, err := get(ctx, client, url)
					if err != nil {
						return err
					}
					seen[got.Pod]++
				}
				if len(seen) < podCount {
					return fmt.Errorf("of %d pods these answer: %v", podCount, seen)
				}
				return nil
			})
		})
	}
}

func namedPort(s *scene, _ controller) {
	s.ingresses("metadata: {name: named}\nspec: {rules: [{host: named.example, http: {paths: [" +
		"{path: /web, pathType: Prefix, backend: {service: {name: named, port: {name: http}}}}," +
		"{path: /other, pathType: Prefix, backend: {service: {name: named, port: {name: other}}}}," +
		"{path: /number, pathType: Prefix, backend: {service: {name: named, port: {number: 81}}}}]}}]}\n")
	s.become(
		ask{url: "http://named.example/web", backend: "a"},
		ask{url: "http://named.example/other", backend: "b"},
		ask{url: "http://named.example/number", backend: "b"},
	)
}

func externalName(s *scene, _ controller) {
	s.ingresses(simple("external", rule("external.example", "Prefix", "/", "external")))
	s.become(ask{url: "http://external.example/", backend: "c"})
}

// noEndpoints: a Service without endpoints is answered for, and so is a Service that is not there,
// and neither harms the rest of the Ingress.
func noEndpoints(s *scene, _ controller) {
	s.ingresses(simple("no-endpoints", rule("empty.example", "Prefix", "/", "empty"), rule("empty.example", "Prefix", "/full", "a")))
	s.become(ask{url: "http://empty.example/", status: 503}, ask{url: "http://empty.example/full", backend: "a"})
}

func noService(s *scene, _ controller) {
	s.ingresses(simple("no-service", rule("none.example", "Prefix", "/", "none"), rule("none.example", "Prefix", "/full", "a")))
	s.become(ask{url: "http://none.example/", status: 503}, ask{url: "http://none.example/full", backend: "a"})
	s.warned("Ingress", "no-service", s.ns+"/none")
	s.apply("apiVersion: v1\nkind: Service\nmetadata: {name: none}\nspec: {selector: {app: echo}, ports: [{port: 80, targetPort: 8082}]}\n")
	s.Cleanup(func() {
		if err := s.client.CoreV1().Services(s.ns).Delete(context.Background(), "none", metav1.DeleteOptions{}); err != nil {
			s.Error(err)
		}
	})
	s.become(ask{url: "http://none.example/", backend: "b"})
}

// forwardedHeaders: the backend learns who asked, for what, and is not lied to.
func forwardedHeaders(s *scene, _ controller) {
	const host = "headers.example"
	cert := valid(s.T, host)
	s.secret(tlsSecret("headers", cert))
	s.ingresses(secured("headers", host, "headers", "a"))
	client := s.outside.Addr.String()
	is := func(got answer.Answer, want map[string]string) error {
		var wrong []error
		for name, value := range want {
			if v := got.Header[name]; len(v) != 1 || v[0] != value {
				wrong = append(wrong, fmt.Errorf("%s is %q, not %q", name, v, value))
			}
		}
		if got.Host != host {
			wrong = append(wrong, fmt.Errorf("the Host is %q", got.Host))
		}
		return errors.Join(wrong...)
	}
	plain := map[string]string{"X-Forwarded-For": client, "X-Real-Ip": client, "X-Forwarded-Proto": "http", "X-Forwarded-Host": host, "X-Forwarded-Port": "80"}
	s.answers(s.trusting(cert), "https://"+host+"/", "a")
	// Over HTTPS first: where that is on, plain requests may be sent there.
	encrypted := map[string]string{"X-Forwarded-For": client, "X-Forwarded-Proto": "https", "X-Forwarded-Host": host, "X-Forwarded-Port": "443"}
	lies := map[string]string{"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "lie.example", "X-Real-Ip": "203.0.113.9"}
	for name, header := range map[string]map[string]string{"honest": nil, "lying": lies} {
		err := ask{url: "https://" + host + "/", backend: "a", header: header, also: func(got answer.Answer) error { return is(got, encrypted) }}.
			try(within(s.T, patience), s.trusting(cert))
		if err != nil {
			s.Errorf("a %s client over HTTPS: %v", name, err)
		}
	}
	s.ingresses(simple("headers-plain", rule("plain."+host, "Prefix", "/", "a")))
	plain["X-Forwarded-Host"] = "plain." + host
	s.become(ask{url: "http://plain." + host + "/", backend: "a", header: lies, also: func(got answer.Answer) error {
		got.Host = got.Host[len("plain."):]
		return is(got, plain)
	}})
}

// from is whether the backend was told of the client's address.
func from(client string) func(answer.Answer) error {
	return func(got answer.Answer) error {
		if v := got.Header["X-Forwarded-For"]; len(v) != 1 || v[0] != client {
			return fmt.Errorf("X-Forwarded-For is %q, not %q", v, client)
		}
		return nil
	}
}
