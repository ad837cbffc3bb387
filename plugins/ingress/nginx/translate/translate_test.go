package translate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/translate"
)

// cluster holds objects by name, all of namespace "default".
type cluster struct {
	services map[string]*corev1.Service
	slices   map[string][]*discoveryv1.EndpointSlice
	secrets  map[string]*corev1.Secret
}

func (c cluster) input(ingresses ...*networkingv1.Ingress) translate.Input {
	return translate.Input{Ingresses: ingresses, Settings: settings.Default(),
		Service:        func(_, name string) *corev1.Service { return c.services[name] },
		EndpointSlices: func(_, name string) []*discoveryv1.EndpointSlice { return c.slices[name] },
		Secret:         func(_, name string) *corev1.Secret { return c.secrets[name] }}
}

func ingress(name string, age int, given map[string]string, host, path string, kind networkingv1.PathType) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{},
		CreationTimestamp: metav1.NewTime(time.Unix(int64(1e6-age), 0))}}
	for key, value := range given {
		ing.Annotations[annotations.Prefix+key] = value
	}
	ing.Spec.Rules = []networkingv1.IngressRule{{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{
		HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: path, PathType: &kind,
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web",
				Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}
	return ing
}

func service(ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{Ports: ports}}
}

func slice(port int32, name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints,
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}}
}

func endpoint(address string, ready, serving, terminating bool) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{Addresses: []string{address},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}}
}

// Requests go to endpoints that are ready; where there is none, to those that end and still serve.
func TestEndpoints(t *testing.T) {
	port, web := int32(8080), "web"
	for name, c := range map[string]struct {
		slices []*discoveryv1.EndpointSlice
		want   string
	}{
		"ready, sorted and once": {[]*discoveryv1.EndpointSlice{
			slice(8080, "web", endpoint("10.0.0.2", true, true, false), endpoint("10.0.0.1", true, true, false)),
			slice(8080, "web", endpoint("10.0.0.2", true, true, false), endpoint("10.0.0.3", false, false, false))},
			"[10.0.0.1:8080 10.0.0.2:8080]"},
		"not those that end, while there are others": {[]*discoveryv1.EndpointSlice{
			slice(8080, "web", endpoint("10.0.0.1", true, true, false), endpoint("10.0.0.2", false, true, true))}, "[10.0.0.1:8080]"},
		"those that end":  {[]*discoveryv1.EndpointSlice{slice(8080, "web", endpoint("10.0.0.2", false, true, true))}, "[10.0.0.2:8080]"},
		"none serves":     {[]*discoveryv1.EndpointSlice{slice(8080, "web", endpoint("10.0.0.2", false, false, true))}, "[]"},
		"another port":    {[]*discoveryv1.EndpointSlice{slice(9090, "metrics", endpoint("10.0.0.2", true, true, false))}, "[]"},
		"no conditions":   {[]*discoveryv1.EndpointSlice{{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &web, Port: &port}}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}}}}, "[10.0.0.1:8080]"},
		"names of others": {[]*discoveryv1.EndpointSlice{{AddressType: discoveryv1.AddressTypeFQDN, Ports: []discoveryv1.EndpointPort{{Name: &web, Port: &port}}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"a.example"}}}}}, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			objects := cluster{services: map[string]*corev1.Service{"web": service(corev1.ServicePort{Name: "web", Port: 80})},
				slices: map[string][]*discoveryv1.EndpointSlice{"web": c.slices}}
			out := translate.Translate(objects.input(ingress("a", 1, nil, "a.example", "/", networkingv1.PathTypePrefix)))
			got := "[]"
			if len(out.Config.Upstreams) > 0 {
				got = fmt.Sprint(out.Config.Upstreams[0].Endpoints)
			}
			if got != c.want {
				t.Errorf("endpoints %s, want %s", got, c.want)
			}
		})
	}
}

// What is wrong is said of the Ingress that is wrong, and of no other.
func TestProblems(t *testing.T) {
	prefix := networkingv1.PathTypePrefix
	objects := cluster{services: map[string]*corev1.Service{"web": service(corev1.ServicePort{Name: "web", Port: 80})},
		secrets: map[string]*corev1.Secret{"empty": {ObjectMeta: metav1.ObjectMeta{Name: "empty"}}}}
	withTLS := func(ing *networkingv1.Ingress, secret string) *networkingv1.Ingress {
		ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{ing.Spec.Rules[0].Host}, SecretName: secret}}
		return ing
	}
	resource := ingress("x", 1, nil, "a.example", "/", prefix)
	resource.Spec.Rules[0].HTTP.Paths[0].Backend = networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{Kind: "Bucket"}}
	port := ingress("x", 1, nil, "a.example", "/", prefix)
	port.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Port = networkingv1.ServiceBackendPort{Name: "admin"}
	missing := ingress("x", 1, nil, "a.example", "/", prefix)
	missing.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name = "none"
	for name, c := range map[string]struct {
		ingress *networkingv1.Ingress
		reason  translate.Reason
		says    string
	}{
		"a typo": {ingress("x", 1, map[string]string{"proxy-body-sise": "1m"}, "a.example", "/", prefix), translate.BadAnnotation,
			`did you mean "proxy-body-size"?`},
		"a wrong value": {ingress("x", 1, map[string]string{"proxy-read-timeout": "soon"}, "a.example", "/", prefix), translate.BadAnnotation,
			`"soon" is not a number of seconds`},
		"not supported": {ingress("x", 1, map[string]string{"mirror-target": "http://x"}, "a.example", "/", prefix), translate.Unsupported,
			"requests are not mirrored"},
		"a snippet": {ingress("x", 1, map[string]string{"server-snippet": "return 200;"}, "a.example", "/", prefix), translate.SnippetsOff,
			"snippets are off"},
		"an expression": {ingress("x", 1, map[string]string{"use-regex": "true"}, "a.example", "/(?=x)", prefix), translate.BadRule,
			"(?:…)"},
		"the controller's path": {ingress("x", 1, nil, "a.example", "/_k3m_auth_x", prefix), translate.BadRule, "the controller's own"},
		"no certificate":        {withTLS(ingress("x", 1, nil, "a.example", "/", prefix), "none"), translate.BadTLS, "there is no secret default/none"},
		"an empty secret":       {withTLS(ingress("x", 1, nil, "a.example", "/", prefix), "empty"), translate.BadTLS, `no key "tls.crt"`},
		"a resource":            {resource, translate.BadBackend, "must be a Service"},
		"no such port":          {port, translate.BackendMissing, `has no port "admin"`},
		"no such Service":       {missing, translate.BackendMissing, "there is no Service default/none"},
		"a path that is taken":  {ingress("x", 1, nil, "good.example", "/", prefix), translate.DuplicatePath, "default/good has it already"},
		"a canary of nothing": {ingress("x", 1, map[string]string{"canary": "true"}, "none.example", "/", prefix), translate.BadRule,
			"nothing to be the canary of"},
		"an alias that is taken": {ingress("x", 1, map[string]string{"server-alias": "good.example"}, "a.example", "/", prefix),
			translate.BadAnnotation, "good.example is served already"},
	} {
		t.Run(name, func(t *testing.T) {
			out := translate.Translate(objects.input(c.ingress, ingress("good", 2, nil, "good.example", "/", prefix)))
			if len(out.Problems) != 1 {
				t.Fatalf("problems %v, want one", out.Problems)
			}
			p := out.Problems[0]
			if p.Reason != c.reason || p.Ingress.Name != "x" || !strings.Contains(p.Message, c.says) {
				t.Errorf("%s, %s: %s; want %s: … %s …", p.Ingress, p.Reason, p.Message, c.reason, c.says)
			}
		})
	}
}

// The older Ingress has a path, whatever the order in which they come; what the caller says is lost
// is left out without a word.
func TestOlderWins(t *testing.T) {
	objects := cluster{services: map[string]*corev1.Service{"web": service(corev1.ServicePort{Name: "web", Port: 80})}}
	older := ingress("z-older", 2, nil, "a.example", "/x", networkingv1.PathTypePrefix)
	newer := ingress("a-newer", 1, nil, "a.example", "/x/", networkingv1.PathTypePrefix)
	for _, both := range [][]*networkingv1.Ingress{{older, newer}, {newer, older}} {
		out := translate.Translate(objects.input(both...))
		if owner := out.Config.Servers[1].Locations[0].Owner.Name; owner != "z-older" || len(out.Config.Servers[1].Locations) != 1 {
			t.Errorf("%s has the path", owner)
		}
	}
	in := objects.input(older, newer)
	in.Lost = func(ing types.NamespacedName, host, path string, kind networkingv1.PathType) bool {
		return ing.Name == "z-older" && host == "a.example" && path == "/x" && kind == networkingv1.PathTypePrefix
	}
	out := translate.Translate(in)
	if len(out.Problems) != 0 || out.Config.Servers[1].Locations[0].Owner.Name != "a-newer" {
		t.Errorf("%v, %v", out.Problems, out.Config.Servers[1].Locations[0].Owner)
	}
}

func TestReferences(t *testing.T) {
	ing := ingress("a", 1, map[string]string{"auth-secret": "users", "default-backend": "errors"}, "a.example", "/", networkingv1.PathTypePrefix)
	ing.Spec.TLS = []networkingv1.IngressTLS{{SecretName: "pair"}}
	refs := translate.ReferencesOf(ing)
	name := func(n string) []types.NamespacedName { return []types.NamespacedName{{Namespace: "default", Name: n}} }
	if !slices.Equal(refs.TLS, name("pair")) || !slices.Equal(refs.Users, name("users")) ||
		!slices.Equal(refs.Services, append(name("web"), name("errors")...)) {
		t.Errorf("%+v", refs)
	}
	ing.Annotations[annotations.Prefix+"auth-secret"] = "kube-system/users"
	if refs := translate.ReferencesOf(ing); len(refs.Users) != 0 {
		t.Errorf("another namespace's secret is asked for: %v", refs.Users)
	}
}

// A key that OpenSSL would refuse, which would fail nginx as a whole, is refused before.
func TestKeyPairs(t *testing.T) {
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func(public, private any) (cert, key []byte) {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example"}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	}
	cert, key := make(&curve.PublicKey, curve)
	if _, err := translate.NewKeyPair(cert, key); err != nil {
		t.Error(err)
	}
	junk := append(append([]byte("text before\n"), cert...), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")...)
	if _, err := translate.NewKeyPair(junk, key); err == nil {
		t.Error("a broken chain is taken")
	}
	cert, other := make(&short.PublicKey, short)
	if _, err := translate.NewKeyPair(cert, other); err == nil || !strings.Contains(err.Error(), "1024 bits") {
		t.Errorf("a short key: %v", err)
	}
	if _, err := translate.NewKeyPair(cert, key); err == nil {
		t.Error("a key of another certificate is taken")
	}
}

// A cache gives a certificate again as long as its secret is what it was, and forgets those that
// nobody asks for.
func TestCache(t *testing.T) {
	ing := ingress("a", 1, nil, "a.example", "/", networkingv1.PathTypePrefix)
	ing.Spec.TLS = []networkingv1.IngressTLS{{SecretName: "pair"}}
	cert, key := keyPair(t)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "pair", ResourceVersion: "1"},
		Data: map[string][]byte{"tls.crt": cert, "tls.key": key}}
	objects := cluster{services: map[string]*corev1.Service{"web": service(corev1.ServicePort{Name: "web", Port: 80})},
		secrets: map[string]*corev1.Secret{"pair": secret}}
	cache := translate.NewCache()
	run := func(ingresses ...*networkingv1.Ingress) string {
		in := objects.input(ingresses...)
		in.Cache = cache
		out := translate.Translate(in)
		if last := out.Config.Servers[len(out.Config.Servers)-1]; last.Certificate != nil {
			return last.Certificate.ID
		}
		return ""
	}
	first := run(ing)
	// Nobody changes an object without its version: that it is the same again shows the cache.
	secret.Data = nil
	if again := run(ing); first == "" || again != first {
		t.Errorf("the certificate %q, then %q", first, again)
	}
	run()
	if again := run(ing); again != "" {
		t.Errorf("a certificate that nobody asked for is remembered")
	}
	secret.Data, secret.ResourceVersion = map[string][]byte{"tls.crt": cert, "tls.key": key}, "2"
	if again := run(ing); again != first {
		t.Errorf("after a new version: %q", again)
	}
}

func keyPair(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}
