package ingress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// secured is an Ingress for one host with a TLS secret.
func secured(name, host, secret, backend string) string {
	return fmt.Sprintf("metadata: {name: %s}\nspec: {tls: [{hosts: [%q], secretName: %s}], rules: [%s]}\n", name, host, secret, rule(host, "Prefix", "/", backend))
}

// trusting is a client from outside that trusts nothing but the pairs.
func (s *scene) trusting(pairs ...pair) *http.Client {
	roots := x509.NewCertPool()
	for _, p := range pairs {
		roots.AppendCertsFromPEM(p.cert)
	}
	transport := s.outside.Transport(s.address())
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	transport.ForceAttemptHTTP2 = true
	s.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 5 * time.Second, CheckRedirect: noRedirects}
}

// answers waits until a client's request is answered by a backend.
func (s *scene) answers(client *http.Client, url, backend string) {
	s.Helper()
	eventually(s.T, url+" is answered by backend "+backend, func(ctx context.Context) error {
		return ask{url: url, backend: backend}.try(ctx, client)
	})
}

func tlsBySNI(s *scene, _ controller) {
	one, two := valid(s.T, "one.tls.example"), valid(s.T, "two.tls.example")
	s.secret(tlsSecret("tls-one", one))
	s.secret(tlsSecret("tls-two", two))
	s.ingresses(secured("tls-one", "one.tls.example", "tls-one", "a") + "---\n" + secured("tls-two", "two.tls.example", "tls-two", "b"))
	client := s.trusting(one, two)
	s.answers(client, "https://one.tls.example/", "a")
	s.answers(client, "https://two.tls.example/", "b")
	if err := s.presents("one.tls.example", one); err != nil {
		s.Error(err)
	}
	if err := s.presents("two.tls.example", two); err != nil {
		s.Error(err)
	}
	// Who asks for no name, or for one that is nobody's, sees a certificate of the ingress
	// itself, and no customer's.
	for _, name := range []string{"", "nobody.tls.example"} {
		switch got, err := s.presented(name); {
		case err != nil:
			s.Errorf("for the name %q: %v", name, err)
		case len(got.DNSNames) > 0 && (got.DNSNames[0] == "one.tls.example" || got.DNSNames[0] == "two.tls.example"):
			s.Errorf("for the name %q there is the certificate of %v", name, got.DNSNames)
		}
	}
}

// renewedCertificate: a Secret that is changed is used from then on.
func renewedCertificate(s *scene, _ controller) {
	const host = "renewed.example"
	before, after := valid(s.T, host), valid(s.T, host)
	s.secret(tlsSecret("renewed", before))
	s.ingresses(secured("renewed", host, "renewed", "a"))
	eventually(s.T, "the certificate is shown", func(context.Context) error { return s.presents(host, before) })
	if _, err := s.client.CoreV1().Secrets(s.ns).Update(s.Context(), tlsSecret("renewed", after), metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	eventually(s.T, "the new certificate is shown", func(context.Context) error { return s.presents(host, after) })
	s.answers(s.trusting(after), "https://"+host+"/", "a")
}

func wildcardCertificate(s *scene, _ controller) {
	wild, exact := valid(s.T, "*.wildtls.example"), valid(s.T, "exact.wildtls.example")
	s.secret(tlsSecret("wildtls", wild))
	s.secret(tlsSecret("exacttls", exact))
	s.ingresses(secured("wildtls", "*.wildtls.example", "wildtls", "a") + "---\n" + secured("exacttls", "exact.wildtls.example", "exacttls", "b"))
	client := s.trusting(wild, exact)
	s.answers(client, "https://some.wildtls.example/", "a")
	s.answers(client, "https://exact.wildtls.example/", "b")
	eventually(s.T, "the exact certificate is preferred", func(context.Context) error { return s.presents("exact.wildtls.example", exact) })
}

// badSecrets: what is wrong with a Secret is told by an Event on the Ingress, all others go on,
// and when it is mended, the certificate is used.
func badSecrets(s *scene, _ controller) {
	good := valid(s.T, "good.badtls.example")
	s.secret(tlsSecret("good", good))
	s.ingresses(secured("good", "good.badtls.example", "good", "a") + "---\n" + simple("good-plain", rule("plain.badtls.example", "Prefix", "/", "c")))
	s.answers(s.trusting(good), "https://good.badtls.example/", "a")

	broken := valid(s.T, "malformed.badtls.example")
	broken.cert = []byte("-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n")
	mixed := valid(s.T, "mixed.badtls.example")
	mixed.key = valid(s.T, "mixed.badtls.example").key
	for _, c := range []struct {
		name   string
		secret *corev1.Secret
		words  string
	}{
		{"missing", nil, "TLSSecretMissing"},
		{"malformed", tlsSecret("malformed", broken), "TLSSecretInvalid"},
		{"expired", tlsSecret("expired", certificate(s.T, time.Now().Add(-time.Hour), "expired.badtls.example")), "TLSCertificateExpired"},
		{"mixed", tlsSecret("mixed", mixed), "TLSSecretInvalid"},
	} {
		s.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			host := c.name + ".badtls.example"
			if c.secret != nil {
				s.secret(c.secret)
			}
			s.ingresses(secured("bad-"+c.name, host, c.name, "b"))
			s.warned("Ingress", "bad-"+c.name, c.words)
			s.answers(s.trusting(good), "https://good.badtls.example/", "a")
			s.become(ask{url: "http://plain.badtls.example/", backend: "c"})

			mended := valid(t, host)
			if c.secret == nil {
				s.secret(tlsSecret(c.name, mended))
			} else if _, err := s.client.CoreV1().Secrets(s.ns).Update(t.Context(), tlsSecret(c.name, mended), metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			s.answers(s.trusting(mended), "https://"+host+"/", "b")
		})
	}
}
