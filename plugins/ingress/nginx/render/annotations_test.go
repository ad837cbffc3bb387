package render_test

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

type said = map[string]string

func TestRewrite(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	s.ingress("groups", said{"rewrite-target": "/$2", "use-regex": "true"}, "~ groups.example/api(/|$)(.*) web")
	s.ingress("implied", said{"rewrite-target": "/new/$1?from=$1"}, "^ implied.example/old/(.*) web")
	s.ingress("plain", said{"rewrite-target": "/app"}, "^ plain.example/x web")
	s.ingress("none", nil, "^ none.example/ web")
	s.ingress("bad", said{"rewrite-target": "/$uri"}, "^ bad.example/x web")
	s.start()
	for url, want := range map[string]string{
		"http://groups.example/api/v1/x?y=1": "/v1/x?y=1",
		"http://groups.example/api":          "/",
		"http://groups.example/API/v1":       "/v1",
		"http://implied.example/old/a?b=c":   "/new/a?from=a&b=c",
		"http://plain.example/x/y":           "/app",
		"http://none.example/a%2Fb//c?d=%20": "/a%2Fb//c?d=%20",
		"http://bad.example/x/y":             "/x/y",
	} {
		if got := s.get(url).path(); got != want {
			t.Errorf("%s: the backend saw %s, want %s", url, got, want)
		}
	}
	if got := s.get("http://groups.example/apiary").from(); got != "404" {
		t.Errorf("/apiary: answered by %s, want 404", got)
	}
}

func TestRedirects(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	s.tlsSecret("pair", "tls.example", "off.example", "mixed.example", "www.from.example", "from.example")
	tls := func(ing *networkingv1.Ingress, host string) {
		ing.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{host}, SecretName: "pair"}}
	}
	tls(s.ingress("tls", nil, "^ tls.example/ web"), "tls.example")
	tls(s.ingress("off", said{"ssl-redirect": "false"}, "^ off.example/ web"), "off.example")
	tls(s.ingress("mixed", nil, "^ mixed.example/x web", "^ mixed.example/.well-known/acme-challenge web"), "mixed.example")
	s.ingress("force", said{"force-ssl-redirect": "true"}, "^ force.example/ web")
	s.ingress("permanent", said{"permanent-redirect": "https://new.example$request_uri"}, "^ permanent.example/ web")
	s.ingress("permanent-code", said{"permanent-redirect": "https://new.example", "permanent-redirect-code": "308"}, "^ code.example/ web")
	s.ingress("temporal", said{"temporal-redirect": "https://new.example/x"}, "^ temporal.example/ web")
	s.ingress("root", said{"app-root": "/app"}, "^ root.example/ web")
	tls(s.ingress("www", said{"from-to-www-redirect": "true"}, "^ from.example/ web"), "from.example")
	s.start()
	for url, want := range map[string]string{
		"http://tls.example/a?b=c":                              "308 https://tls.example/a?b=c",
		"https://tls.example/a":                                 "200 ",
		"http://off.example/":                                   "200 ",
		"http://mixed.example/x/y":                              "308 https://mixed.example/x/y",
		"http://mixed.example/.well-known/acme-challenge/token": "200 ",
		"http://force.example/x":                                "308 https://force.example/x",
		"http://permanent.example/a?b=c":                        "301 https://new.example/a?b=c",
		"http://code.example/a":                                 "308 https://new.example",
		"http://temporal.example/a":                             "302 https://new.example/x",
		"http://root.example/":                                  "302 http://root.example/app",
		"http://root.example/other":                             "200 ",
		"https://www.from.example/a?b":                          "308 https://from.example/a?b",
	} {
		got := s.get(url)
		if line := strings.Join([]string{got.Status[:3], got.Header.Get("Location")}, " "); line != want {
			t.Errorf("%s: %s, want %s", url, line, want)
		}
	}
	if got := s.get("https://tls.example/").Header.Get("Strict-Transport-Security"); !strings.HasPrefix(got, "max-age=31536000") {
		t.Errorf("Strict-Transport-Security: %q", got)
	}
	if got := s.get("https://force.example/").Header.Get("Strict-Transport-Security"); got != "" {
		t.Errorf("Strict-Transport-Security of a host without a certificate: %q, want none", got)
	}
}

func TestAddresses(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	s.ingress("in", said{"whitelist-source-range": "10.0.0.0/8, 127.0.0.1"}, "^ in.example/ web")
	s.ingress("out", said{"whitelist-source-range": "10.0.0.0/8"}, "^ out.example/ web")
	s.ingress("deny", said{"denylist-source-range": "127.0.0.0/8"}, "^ deny.example/ web")
	s.ingress("wrong", said{"whitelist-source-range": "10.0.0.0/8, everybody"}, "^ wrong.example/ web")
	s.ingress("snippet", said{"configuration-snippet": "deny all;"}, "^ snippet.example/ web")
	s.ingress("clients", said{"auth-tls-secret": "default/ca"}, "^ clients.example/ web")
	s.start()
	for host, want := range map[string]string{"in": "web", "out": "403", "deny": "403", "wrong": "503", "snippet": "503", "clients": "503"} {
		if got := s.get("http://" + host + ".example/").from(); got != want {
			t.Errorf("%s: answered by %s, want %s", host, got, want)
		}
	}
}

func TestBasicAuth(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	// openssl passwd -apr1 -salt saltsalt secret
	const hash = "$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0"
	s.secrets["file"] = &corev1.Secret{Data: map[string][]byte{"auth": []byte("# users\njane:" + hash + "\n")}}
	s.secrets["map"] = &corev1.Secret{Data: map[string][]byte{"jane": []byte(hash + "\n")}}
	s.secrets["bad"] = &corev1.Secret{Data: map[string][]byte{"auth": []byte("jane\n")}}
	for _, one := range []string{"file", "map", "bad", "missing", "kube-system/file"} {
		kind := "auth-file"
		if one == "map" {
			kind = "auth-map"
		}
		name, _, _ := strings.Cut(one, "/")
		s.ingress(name, said{"auth-type": "basic", "auth-secret": one, "auth-secret-type": kind, "auth-realm": `For $us; only`},
			"^ "+name+".example/ web")
	}
	s.ingress("digest", said{"auth-type": "digest", "auth-secret": "file"}, "^ digest.example/ web")
	s.start()
	jane := func(r *http.Request) { r.SetBasicAuth("jane", "secret") }
	wrong := func(r *http.Request) { r.SetBasicAuth("jane", "wrong") }
	for _, host := range []string{"file", "map"} {
		url := "http://" + host + ".example/"
		if got := s.get(url); got.StatusCode != 401 || got.Header.Get("WWW-Authenticate") != `Basic realm="For $us; only"` {
			t.Errorf("%s: %d, %s", host, got.StatusCode, got.Header.Get("WWW-Authenticate"))
		}
		if got := s.get(url, wrong).from(); got != "401" {
			t.Errorf("%s, a wrong password: %s, want 401", host, got)
		}
		if got := s.get(url, jane).from(); got != "web" {
			t.Errorf("%s, the right password: %s, want web", host, got)
		}
	}
	for _, host := range []string{"bad", "missing", "kube-system", "digest"} {
		if got := s.get("http://"+host+".example/", jane).from(); got != "503" {
			t.Errorf("%s: %s, want 503", host, got)
		}
	}
}

func TestCORS(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	s.ingress("any", said{"enable-cors": "true"}, "^ any.example/ web")
	s.ingress("some", said{"enable-cors": "true", "cors-allow-origin": "https://a.example, https://*.b.example:8443",
		"cors-allow-methods": "GET, POST", "cors-allow-headers": "X-One", "cors-expose-headers": "X-Two", "cors-max-age": "60",
		"cors-allow-credentials": "false"}, "^ some.example/ web")
	s.start()
	options := func(r *http.Request) { r.Method = http.MethodOptions }
	if got := s.get("http://any.example/", options, with("Origin", "https://x.example")); got.StatusCode != 204 ||
		got.Header.Get("Access-Control-Allow-Origin") != "*" || got.Header.Get("Access-Control-Allow-Credentials") != "true" ||
		!strings.Contains(got.Header.Get("Access-Control-Allow-Methods"), "PATCH") || got.Header.Get("Access-Control-Max-Age") != "1728000" {
		t.Errorf("permission for any origin: %d, %v", got.StatusCode, got.Header)
	}
	for origin, want := range map[string]string{"https://a.example": "https://a.example", "https://x.b.example:8443": "https://x.b.example:8443",
		"https://b.example:8443": "", "https://x.b.example": "", "https://a.example.evil.example": "", "https://aXexample": "", "null": ""} {
		got := s.get("http://some.example/", with("Origin", origin))
		if got.from() != "web" || got.Header.Get("Access-Control-Allow-Origin") != want {
			t.Errorf("origin %s: %s, allowed %q, want %q", origin, got.from(), got.Header.Get("Access-Control-Allow-Origin"), want)
		}
		if got.Header.Get("Access-Control-Expose-Headers") != "X-Two" || got.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("origin %s: %v", origin, got.Header)
		}
	}
}

func TestHeaders(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	s.ingress("plain", nil, "^ plain.example/ web")
	s.ingress("host", said{"upstream-vhost": "inner.example", "x-forwarded-prefix": "/p"}, "^ host.example/ web")
	s.start()
	got := s.get("http://plain.example/", with("X-Forwarded-For", "192.0.2.1"), with("X-Forwarded-Proto", "https"), with("Proxy", "x"))
	for header, want := range map[string]string{"Host": "plain.example", "X-Real-Ip": "127.0.0.1", "X-Forwarded-For": "127.0.0.1",
		"X-Forwarded-Proto": "http", "X-Forwarded-Port": "80", "X-Original-Forwarded-For": "192.0.2.1", "Proxy": "", "Connection": ""} {
		if got.saw(header) != want {
			t.Errorf("%s: %q, want %q", header, got.saw(header), want)
		}
	}
	if got.saw("X-Request-Id") == "" {
		t.Error("the request has no ID")
	}
	got = s.get("http://host.example/")
	if got.saw("Host") != "inner.example" || got.saw("X-Forwarded-Prefix") != "/p" || got.saw("X-Forwarded-Host") != "host.example" {
		t.Errorf("upstream-vhost: %s", got.body)
	}
}
