package traefik

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/traefik/traefik/v2/pkg/config/dynamic"
	"github.com/traefik/traefik/v2/pkg/middlewares/requestdecorator"
	httpmuxer "github.com/traefik/traefik/v2/pkg/muxer/http"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
)

const (
	exact  = networkingv1.PathTypeExact
	prefix = networkingv1.PathTypePrefix
	own    = networkingv1.PathTypeImplementationSpecific
)

// ingresses reads Ingresses; the first is the oldest.
func ingresses(t *testing.T, text string) []*networkingv1.Ingress {
	t.Helper()
	var all []*networkingv1.Ingress
	for n, one := range strings.Split(text, "---\n") {
		i := &networkingv1.Ingress{}
		must(t, yaml.UnmarshalStrict([]byte(one), i))
		if i.Namespace == "" {
			i.Namespace = "default"
		}
		i.UID, i.CreationTimestamp = types.UID(i.Name), metav1.NewTime(time.Unix(int64(n), 0))
		all = append(all, i)
	}
	return all
}

// translated translates with what an audit says; every Service is there, with a port 80 and no endpoints.
func translated(t *testing.T, text string, change func(*translation)) (*dynamic.Configuration, []kit.Finding) {
	t.Helper()
	all := ingresses(t, text)
	var auditor kit.Auditor
	tr := &translation{
		lost: auditor.Run(kit.AuditInput{Ingresses: all, Now: time.Now()}).Lost,
		service: func(namespace, name string) *corev1.Service {
			return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		},
		endpoints: func(string, string) []*discoveryv1.EndpointSlice { return nil },
		secret:    func(string, string) *corev1.Secret { return nil },
		domain:    "cluster.local",
	}
	if change != nil {
		change(tr)
	}
	return tr.run(all)
}

// ask tells which service Traefik's own muxer leads a request to; "404" for none.
func ask(t *testing.T, conf *dynamic.Configuration, host, path string) string {
	t.Helper()
	muxer, err := httpmuxer.NewMuxer()
	must(t, err)
	answer := "404"
	for name, r := range conf.HTTP.Routers {
		must(t, muxer.AddRoute(r.Rule, r.Priority, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { answer = conf.HTTP.Routers[name].Service })))
	}
	muxer.SortRoutes()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+path, nil)
	request = request.WithContext(context.WithValue(request.Context(), mux.RoutingPathKey, request.URL.Path))
	send(t, muxer, request)
	return strings.TrimSuffix(strings.TrimPrefix(answer, "default-"), "-80")
}

func send(t *testing.T, muxer http.Handler, request *http.Request) {
	t.Helper()
	handler, err := requestdecorator.WrapHandler(requestdecorator.New(nil))(muxer)
	must(t, err)
	handler.ServeHTTP(httptest.NewRecorder(), request)
}

func path(pathType networkingv1.PathType, p, service string) string {
	return "{pathType: " + string(pathType) + ", path: '" + p + "', backend: {service: {name: " + service + ", port: {number: 80}}}}"
}

func TestRequestsReachTheirBackend(t *testing.T) {
	conf, findings := translated(t, `
metadata: {name: paths}
spec:
  rules:
  - host: a.test
    http: {paths: [`+strings.Join([]string{
		path(prefix, "/", "root"), path(prefix, "/foo", "foo"), path(prefix, "/foo/bar/", "bar"), path(exact, "/foo", "exact"),
		path(exact, "/foo/{id}", "braces"), path(own, "/own", "own"), path(exact, "/tick`)||Host(`b.test", "tick")}, ", ")+`]}
  - host: '*.w.test'
    http: {paths: [`+path(prefix, "/a/very/long/path/indeed", "wild")+", "+path(prefix, "/", "wildroot")+`]}
  - host: x.w.test
    http: {paths: [`+path(prefix, "/", "x")+`]}
  - http: {paths: [`+path(prefix, "/foo", "any")+`]}
---
metadata: {name: late, annotations: {traefik.ingress.kubernetes.io/router.priority: "1000"}}
spec:
  rules:
  - host: p.test
    http: {paths: [`+path(prefix, "/", "late")+", "+path(exact, "/longer", "longer")+`]}
---
metadata: {name: back}
spec: {defaultBackend: {service: {name: back, port: {number: 80}}}}
---
metadata: {name: hosted}
spec:
  defaultBackend: {service: {name: hosted, port: {number: 80}}}
  rules: [{host: h.test, http: {paths: [`+path(prefix, "/a", "ha")+`]}}]
---
metadata: {name: second-back}
spec: {defaultBackend: {service: {name: second, port: {number: 80}}}}
`, nil)
	for request, want := range map[string]string{
		"a.test /":                          "root",
		"a.test /other":                     "root",
		"a.test /foo":                       "exact",
		"a.test /foo/":                      "foo",
		"a.test /foo/x":                     "foo",
		"a.test /foobar":                    "root",
		"a.test /foo/bar":                   "bar",
		"a.test /foo/bar/x":                 "bar",
		"a.test /foo/barx":                  "foo",
		"a.test /foo/{id}":                  "braces",
		"a.test /foo/7":                     "foo",
		"a.test /own":                       "own",
		"a.test /ownership":                 "own",
		"A.TEST /foo/x":                     "foo",
		"b.test /foo":                       "any",
		"b.test /":                          "backend",
		"b.test /tick":                      "backend",
		"y.w.test /a/very/long/path/indeed": "wild",
		"y.w.test /b":                       "wildroot",
		"x.w.test /a/very/long/path/indeed": "x",
		"x.y.w.test /a":                     "backend",
		"w.test /a":                         "backend",
		"h.test /a":                         "ha",
		"h.test /b":                         "hosted",
		"p.test /longer":                    "late or longer",
	} {
		host, p, _ := strings.Cut(request, " ")
		if got := ask(t, conf, host, p); got != want && !strings.Contains(want, " or ") {
			t.Errorf("%s is led to %s, want %s", request, got, want)
		}
	}
	if len(findings) != 1 || findings[0].Reason != reasonDefault || findings[0].Object.Name != "second-back" {
		t.Errorf("findings: %+v", findings)
	}
	for name, r := range conf.HTTP.Routers {
		if strings.Contains(name, "late") && r.Priority != 1000 {
			t.Errorf("router %s has the priority %d, want that of its annotation", name, r.Priority)
		}
	}
}

func TestTheOlderIngressWins(t *testing.T) {
	conf, _ := translated(t, `
metadata: {name: older}
spec: {rules: [{host: a.test, http: {paths: [`+path(prefix, "/x", "older")+`]}}]}
---
metadata: {name: newer, namespace: other}
spec: {rules: [{host: a.test, http: {paths: [`+path(prefix, "/x", "newer")+", "+path(prefix, "/y", "rest")+`]}}]}
`, nil)
	if got := ask(t, conf, "a.test", "/x"); got != "older" {
		t.Errorf("/x is led to %s", got)
	}
	if got := ask(t, conf, "a.test", "/y"); got != "other-rest" {
		t.Errorf("/y is led to %s", got)
	}
}

// The Services a/b-c and a-b/c must not be one.
func TestNamesMeanOneThing(t *testing.T) {
	conf, _ := translated(t, `
metadata: {name: i, namespace: a}
spec: {rules: [{host: a.test, http: {paths: [`+path(prefix, "/", "b-c")+`]}}]}
---
metadata: {name: i, namespace: a-b}
spec: {rules: [{host: b.test, http: {paths: [`+path(prefix, "/", "c")+`]}}]}
`, func(tr *translation) {
		tr.endpoints = func(namespace, name string) []*discoveryv1.EndpointSlice {
			return []*discoveryv1.EndpointSlice{slice(map[string]string{"a/b-c": "10.0.0.1", "a-b/c": "10.0.0.2"}[namespace+"/"+name])}
		}
	})
	for host, want := range map[string]string{"a.test": "http://10.0.0.1:8080", "b.test": "http://10.0.0.2:8080"} {
		for _, r := range conf.HTTP.Routers {
			if strings.Contains(r.Rule, host) {
				if got := conf.HTTP.Services[r.Service].LoadBalancer.Servers[0].URL; got != want {
					t.Errorf("%s is led to %s, want %s", host, got, want)
				}
			}
		}
	}
}

// Who has the name that another would get beside its own takes nothing from it.
func TestNamesOfHashesMeanOneThing(t *testing.T) {
	second := names{}
	second.name("a", "one")
	hashed := second.name("a", "two")
	taken := names{}
	taken.name("a", "one")
	taken.name(hashed, "three")
	if got := taken.name("a", "two"); got == hashed || taken[hashed] != "three" || taken[got] != "two" {
		t.Errorf("%q is the name of two things: %v", got, taken)
	}
}

func slice(addresses ...string) *discoveryv1.EndpointSlice {
	port := int32(8080)
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port}}}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

func TestServers(t *testing.T) {
	yes, no := true, false
	gone := discoveryv1.EndpointConditions{Ready: &no, Serving: &no}
	ending := discoveryv1.EndpointConditions{Ready: &no, Serving: &yes}
	with := func(conditions ...discoveryv1.EndpointConditions) []*discoveryv1.EndpointSlice {
		s := slice()
		for n, c := range conditions {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.0.0." + string(rune('1'+n))}, Conditions: c})
		}
		return []*discoveryv1.EndpointSlice{s}
	}
	for name, c := range map[string]struct {
		slices []*discoveryv1.EndpointSlice
		want   string
	}{
		"ready ones":                {with(discoveryv1.EndpointConditions{}, discoveryv1.EndpointConditions{Ready: &yes}), "1 2"},
		"none that is gone":         {with(gone, discoveryv1.EndpointConditions{Ready: &yes}), "2"},
		"none that ends, beside":    {with(ending, discoveryv1.EndpointConditions{Ready: &yes}), "2"},
		"those that end, if alone":  {with(ending, gone), "1"},
		"each once":                 {append(with(discoveryv1.EndpointConditions{}), slice("10.0.0.1")), "1"},
		"none of the other family":  {[]*discoveryv1.EndpointSlice{{AddressType: discoveryv1.AddressTypeIPv6, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"fd00::1"}}}}}, ""},
		"none of another port name": {[]*discoveryv1.EndpointSlice{{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{}}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, s := range servers(c.slices, &corev1.Service{}, &corev1.ServicePort{Port: 80}, "http") {
				got = append(got, strings.TrimSuffix(strings.TrimPrefix(s.URL, "http://10.0.0."), ":8080"))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%v, want %s", got, c.want)
			}
		})
	}
}

func TestAnnotations(t *testing.T) {
	const ingress = `
metadata:
  name: annotated
  annotations:
    traefik.ingress.kubernetes.io/router.middlewares: default-strip@kubernetescrd
    traefik.ingress.kubernetes.io/router.entrypoints: websecure
    traefik.ingress.kubernetes.io/router.tls.certresolver: le
    traefik.ingress.kubernetes.io/router.tls.domains.0.main: a.test
    traefik.ingress.kubernetes.io/router.pathmatcher: MATCHER
spec: {rules: [{host: a.test, http: {paths: [{pathType: ImplementationSpecific, path: /x, backend: {service: {name: s, port: {number: 80}}}}]}}]}
`
	service := func(annotations map[string]string) func(*translation) {
		return func(tr *translation) {
			tr.service = func(namespace, name string) *corev1.Service {
				return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: annotations},
					Spec: corev1.ServiceSpec{ClusterIP: "10.43.0.9", Ports: []corev1.ServicePort{{Port: 80}}}}
			}
		}
	}
	conf, findings := translated(t, strings.Replace(ingress, "MATCHER", "Path", 1), service(map[string]string{
		annotationPrefix + "service.serversscheme": "h2c", annotationPrefix + "service.nativelb": "true",
		annotationPrefix + "service.sticky.cookie.name": "stay", annotationPrefix + "service.passhostheader": "false"}))
	if len(findings) > 0 {
		t.Fatal(findings)
	}
	r := conf.HTTP.Routers["default-annotated-a-test-x"]
	if r == nil || r.Rule != "Host(`a.test`) && Path(`/x`)" || r.EntryPoints[0] != "websecure" || r.Middlewares[0] != "default-strip@kubernetescrd" ||
		r.TLS.CertResolver != "le" || r.TLS.Domains[0].Main != "a.test" {
		t.Errorf("the router is %+v", r)
	}
	lb := conf.HTTP.Services["default-s-80"].LoadBalancer
	if lb.Servers[0].URL != "h2c://10.43.0.9:80" || lb.Sticky.Cookie.Name != "stay" || *lb.PassHostHeader {
		t.Errorf("the service is %+v", lb)
	}
	t.Run("a matcher that is a rule", func(t *testing.T) {
		conf, findings := translated(t, strings.Replace(ingress, "MATCHER", "'PathPrefix(`/`) || Host'", 1), nil)
		if len(conf.HTTP.Routers) > 0 || len(findings) != 1 || findings[0].Reason != reasonAnnotation {
			t.Errorf("%+v, %+v", conf.HTTP.Routers, findings)
		}
	})
	t.Run("the dashboard's entry point", func(t *testing.T) {
		text := strings.Replace(ingress, "entrypoints: websecure", "entrypoints: websecure,traefik", 1)
		conf, findings := translated(t, strings.Replace(text, "MATCHER", "Path", 1), nil)
		if len(conf.HTTP.Routers) > 0 || len(findings) != 1 || findings[0].Reason != reasonAnnotation {
			t.Errorf("%+v, %+v", conf.HTTP.Routers, findings)
		}
	})
	t.Run("a scheme that is none", func(t *testing.T) {
		conf, findings := translated(t, strings.Replace(ingress, "MATCHER", "Path", 1), service(map[string]string{annotationPrefix + "service.serversscheme": "file"}))
		if len(conf.HTTP.Services["default-s-80"].LoadBalancer.Servers) > 0 || len(findings) != 1 || findings[0].Reason != reasonBackend {
			t.Errorf("%+v", findings)
		}
	})
}

func TestExternalName(t *testing.T) {
	const ingress = "metadata: {name: i}\nspec: {rules: [{host: a.test, http: {paths: [{pathType: Prefix, path: /, backend: {service: {name: out, port: {number: 80}}}}]}}]}\n"
	external := func(on bool, name string) func(*translation) {
		return func(tr *translation) {
			every := tr.service
			tr.externalNames = on
			tr.service = func(namespace, service string) *corev1.Service {
				if service == "out" {
					return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service},
						Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: name}}
				}
				return every(namespace, service)
			}
			tr.endpoints = func(_, name string) []*discoveryv1.EndpointSlice {
				return map[string][]*discoveryv1.EndpointSlice{"inside": {slice("10.0.0.1")}}[name]
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*translation)
		want   string
	}{
		"off":                    {external(false, "example.org"), ""},
		"on":                     {external(true, "example.org"), "http://example.org:80"},
		"a Service of a cluster": {external(true, "inside.default.svc.cluster.local."), "http://10.0.0.1:8080"},
	} {
		t.Run(name, func(t *testing.T) {
			conf, findings := translated(t, ingress, c.change)
			got := ""
			for _, s := range conf.HTTP.Services["default-out-80"].LoadBalancer.Servers {
				got += s.URL
			}
			if got != c.want || (len(findings) == 0) != (c.want != "") {
				t.Errorf("%q, want %q; findings %+v", got, c.want, findings)
			}
		})
	}
}

// FuzzRule: whatever a path holds, its router matches no request for another host.
func FuzzRule(f *testing.F) {
	for _, p := range []string{"/", "/a`)||Host(`b.test", "/{x:.*}", "/\"", "/\\", "/a//b", "/%2f", "/{", "/}"} {
		f.Add(p, 0)
		f.Add(p, 1)
		f.Add(p, 2)
	}
	f.Fuzz(func(t *testing.T, p string, kind int) {
		claim := kit.Claim{Host: "a.test", Path: "/" + p, PathType: []networkingv1.PathType{exact, prefix, own}[uint(kind)%3]}
		text, priority := rule(claim, "PathPrefix")
		muxer, err := httpmuxer.NewMuxer()
		must(t, err)
		matched := false
		if muxer.AddRoute(text, priority, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { matched = true })) != nil {
			return // Traefik leaves that router out
		}
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://b.test/", nil)
		request.URL.Path = claim.Path
		request = request.WithContext(context.WithValue(request.Context(), mux.RoutingPathKey, claim.Path))
		send(t, muxer, request)
		if matched {
			t.Errorf("the rule %s matches a request for b.test", text)
		}
	})
}
