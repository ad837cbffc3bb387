package kit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func ingress(name string, age time.Duration, host, path string, pathType networkingv1.PathType) *networkingv1.Ingress {
	return &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name),
			CreationTimestamp: metav1.NewTime(start.Add(-age))},
		Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{Host: host,
			IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
				Paths: []networkingv1.HTTPIngressPath{{Path: path, PathType: &pathType, Backend: networkingv1.IngressBackend{
					Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}}}},
			}}}}},
	}
}

func TestOlderIngressWinsAPath(t *testing.T) {
	const exact, prefix = networkingv1.PathTypeExact, networkingv1.PathTypePrefix
	for name, c := range map[string]struct {
		a, b  *networkingv1.Ingress
		loser string
	}{
		"the older by age":             {ingress("z", time.Hour, "a.test", "/x", exact), ingress("a", 0, "a.test", "/x", exact), "a"},
		"by name at the same age":      {ingress("z", 0, "a.test", "/x", exact), ingress("a", 0, "a.test", "/x", exact), "z"},
		"with a slash at a prefix":     {ingress("z", time.Hour, "a.test", "/x/", prefix), ingress("a", 0, "a.test", "/x", prefix), "a"},
		"not with another type":        {ingress("z", time.Hour, "a.test", "/x", prefix), ingress("a", 0, "a.test", "/x", exact), ""},
		"not with another host":        {ingress("z", time.Hour, "a.test", "/x", exact), ingress("a", 0, "b.test", "/x", exact), ""},
		"not with a slash, if exact":   {ingress("z", time.Hour, "a.test", "/x/", exact), ingress("a", 0, "a.test", "/x", exact), ""},
		"without a host, the same way": {ingress("z", time.Hour, "", "/", prefix), ingress("a", 0, "", "/", prefix), "a"},
	} {
		t.Run(name, func(t *testing.T) {
			var a Auditor
			for _, order := range [][]*networkingv1.Ingress{{c.a, c.b}, {c.b, c.a}} {
				r := a.Run(AuditInput{Ingresses: order, Now: start})
				losers := []string{}
				for loss := range r.Lost {
					losers = append(losers, loss.Ingress.Name)
				}
				if got := strings.Join(losers, ","); got != c.loser {
					t.Fatalf("lost: %q, want %q", got, c.loser)
				}
				if c.loser == "" {
					continue
				}
				if len(r.Findings) != 1 || r.Findings[0].Reason != ReasonDuplicatePath || r.Findings[0].Object.Name != c.loser {
					t.Fatalf("findings: %+v", r.Findings)
				}
			}
		})
	}
}

func pair(t *testing.T, notBefore, notAfter time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: notBefore, NotAfter: notAfter, DNSNames: []string{"a.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

func TestTLSSecretsAreJudged(t *testing.T) {
	cert, key := pair(t, start.Add(-time.Hour), start.Add(time.Hour))
	_, other := pair(t, start, start.Add(time.Hour))
	for name, c := range map[string]struct {
		cert, key []byte
		missing   bool
		now       time.Time
		reason    string
		again     bool
	}{
		"good":                {cert: cert, key: key, now: start, again: true},
		"missing":             {missing: true, now: start, reason: ReasonSecretMissing},
		"without certificate": {key: key, now: start, reason: ReasonSecretInvalid},
		"without key":         {cert: cert, now: start, reason: ReasonSecretInvalid},
		"not PEM":             {cert: []byte("x"), key: key, now: start, reason: ReasonSecretInvalid},
		"another's key":       {cert: cert, key: other, now: start, reason: ReasonSecretInvalid},
		"expired":             {cert: cert, key: key, now: start.Add(2 * time.Hour), reason: ReasonCertificateDates},
		"not valid yet":       {cert: cert, key: key, now: start.Add(-2 * time.Hour), reason: ReasonCertificateDates, again: true},
	} {
		t.Run(name, func(t *testing.T) {
			i := ingress("web", 0, "a.test", "/", networkingv1.PathTypePrefix)
			i.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"a.test"}, SecretName: "tls"}}
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "tls", UID: "1", ResourceVersion: "1"},
				Data: map[string][]byte{corev1.TLSCertKey: c.cert, corev1.TLSPrivateKeyKey: c.key}}
			var a Auditor
			r := a.Run(AuditInput{Ingresses: []*networkingv1.Ingress{i}, Now: c.now, Secret: func(namespace, name string) *corev1.Secret {
				if c.missing || namespace != "default" || name != "tls" {
					return nil
				}
				return secret
			}})
			got := ""
			for _, f := range r.Findings {
				got += f.Reason
				if strings.Contains(f.Message, "PRIVATE") || !strings.Contains(f.Message, "default/tls") {
					t.Errorf("message: %s", f.Message)
				}
			}
			if got != c.reason {
				t.Errorf("findings %+v, want %s", r.Findings, c.reason)
			}
			if r.Again.IsZero() == c.again {
				t.Errorf("again at %v", r.Again)
			}
		})
	}
}

func TestMissingBackendsAreFound(t *testing.T) {
	web := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 8080}}}}
	for name, c := range map[string]struct {
		service *corev1.Service
		want    string
	}{
		"no Service": {nil, "default/web does not exist"},
		"no port":    {web, "has no port 80, its paths are answered with 503; it has 8080 (http)"},
	} {
		t.Run(name, func(t *testing.T) {
			var a Auditor
			r := a.Run(AuditInput{Ingresses: []*networkingv1.Ingress{ingress("i", 0, "a.test", "/", networkingv1.PathTypePrefix)},
				Service: func(string, string) *corev1.Service { return c.service }, Now: start})
			if len(r.Findings) != 1 || r.Findings[0].Reason != ReasonBackendMissing || !strings.Contains(r.Findings[0].Message, c.want) {
				t.Errorf("findings: %+v", r.Findings)
			}
		})
	}
}

func TestObjectsFollowTheRank(t *testing.T) {
	for name, c := range map[string]struct {
		rank        int
		http, https uint16
		want        []string
		not         []string
		warns       bool
	}{
		"first": {0, 0, 0, []string{`"type":"LoadBalancer"`, `"port":80`, `"port":443`, `"ingressclass.kubernetes.io/is-default-class":"true"`,
			`"externalTrafficPolicy":"Local"`}, []string{"targetPort", "status", "creationTimestamp", "selector"}, false},
		"second":            {1, 0, 0, []string{`"type":"NodePort"`, `"port":80`}, []string{"is-default-class", "LoadBalancer"}, true},
		"second with ports": {1, 8080, 8443, []string{`"type":"LoadBalancer"`, `"port":8080`, `"port":8443`}, []string{"is-default-class"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := Expose("ingress.nginx", c.rank, c.http, c.https)
			objects, err := Objects(ObjectsOptions{Service: "nginx", Class: "nginx", Controller: "example.com/nginx",
				Ports:        []Port{{Name: "http", Port: e.HTTP}, {Name: "https", Port: e.HTTPS}},
				NodePortOnly: e.NodePortOnly, Default: e.Default})
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(objects)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(string(text), want) {
					t.Errorf("%s lacks %s", text, want)
				}
			}
			for _, not := range c.not {
				if strings.Contains(string(text), not) {
					t.Errorf("%s has %s", text, not)
				}
			}
			if (e.Warning != "") != c.warns {
				t.Errorf("warning: %q", e.Warning)
			}
		})
	}
}
