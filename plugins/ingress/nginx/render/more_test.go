package render_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestAliases(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	s.backend("other")
	s.ingress("web", said{"server-alias": "alias.example, *.alias.example, taken.example"}, "^ web.example/ web")
	s.ingress("taken", nil, "^ taken.example/ other")
	s.start()
	for host, want := range map[string]string{"web": "web", "alias": "web", "x.alias": "web", "y.x.alias": "404", "taken": "other"} {
		if got := s.get("http://" + host + ".example/").from(); got != want {
			t.Errorf("%s: answered by %s, want %s", host, got, want)
		}
	}
}

// With satisfy: any, an address or a password is enough.
func TestSatisfy(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	s.secrets["users"] = &corev1.Secret{Data: map[string][]byte{"auth": []byte("jane:{PLAIN}secret")}}
	guarded := func(satisfy, addresses string) said {
		return said{"auth-type": "basic", "auth-secret": "users", "satisfy": satisfy, "whitelist-source-range": addresses}
	}
	s.ingress("inside", guarded("any", "127.0.0.0/8"), "^ inside.example/ web")
	s.ingress("outside", guarded("any", "10.0.0.0/8"), "^ outside.example/ web")
	s.ingress("both", guarded("all", "10.0.0.0/8"), "^ both.example/ web")
	s.start()
	jane := func(r *http.Request) { r.SetBasicAuth("jane", "secret") }
	for host, want := range map[string][2]string{"inside": {"web", "web"}, "outside": {"401", "web"}, "both": {"403", "403"}} {
		url := "http://" + host + ".example/"
		if got := [2]string{s.get(url).from(), s.get(url, jane).from()}; got != want {
			t.Errorf("%s: %v without and with a password, want %v", host, got, want)
		}
	}
}

// What a backend's answer says of itself is said of the outside.
func TestReplacedAnswers(t *testing.T) {
	s := newSite(t)
	s.service("web", serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "a=b; Path=/inner; Domain=inner.example")
		w.Header().Set("Location", "http://inner.example/inner/x")
		w.Header().Set("Server", "inner")
		w.WriteHeader(http.StatusFound)
	})))
	s.ingress("web", said{"proxy-cookie-path": "/inner /", "proxy-cookie-domain": "inner.example web.example",
		"proxy-redirect-from": "http://inner.example/inner/", "proxy-redirect-to": "http://web.example/"}, "^ web.example/ web")
	s.ingress("plain", nil, "^ plain.example/ web")
	s.start()
	got := s.get("http://web.example/").Header
	if got.Get("Set-Cookie") != "a=b; Path=/; Domain=web.example" || got.Get("Location") != "http://web.example/x" || got.Get("Server") != "nginx" {
		t.Errorf("%v", got)
	}
	if got := s.get("http://plain.example/").Header; got.Get("Location") != "http://inner.example/inner/x" {
		t.Errorf("%v", got)
	}
}

func TestSecureGRPC(t *testing.T) {
	s := newSite(t)
	grpc := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("X-Backend", r.Proto+" for "+r.Host)
		w.Header().Set("Trailer:Grpc-Status", "0")
		_, _ = io.Copy(w, r.Body)
	}))
	grpc.EnableHTTP2 = true
	grpc.StartTLS()
	t.Cleanup(grpc.Close)
	s.service("grpc", netip.MustParseAddrPort(grpc.Listener.Addr().String()))
	s.ingress("grpc", said{"backend-protocol": "GRPCS", "upstream-vhost": "inner.example"}, "^ grpc.example/ grpc")
	s.start()
	got := s.get("https://grpc.example/pkg.Service/Call", func(r *http.Request) {
		r.Method, r.Body = http.MethodPost, io.NopCloser(strings.NewReader("payload"))
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Te", "trailers")
	})
	if got.from() != "HTTP/2.0 for inner.example" || got.body != "payload" || got.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("gRPC: %s, %q, %v", got.from(), got.body, got.Trailer)
	}
}

// A line of the access log has the client, and an Ingress or a path may be left out of it.
func TestAccessLog(t *testing.T) {
	s := newSite(t)
	s.config = map[string]string{"log-format-upstream": `{"client": "$remote_addr", "to": "$proxy_upstream_name", "id": "$req_id", "uri": "$request_uri"}`,
		"log-format-escape-json": "true", "skip-access-log-urls": "/health"}
	s.backend("web")
	s.ingress("web", nil, "^ web.example/ web")
	s.ingress("quiet", said{"enable-access-log": "false"}, "^ quiet.example/ web")
	log := s.start()
	for _, url := range []string{"http://web.example/logged", "http://web.example/health", "http://quiet.example/quiet"} {
		s.get(url, with("X-Request-ID", "0815"))
	}
	s.stop()
	text, err := os.ReadFile(log)
	if want := `{"client": "127.0.0.1", "to": "web.default.80", "id": "0815", "uri": "/logged"}` + "\n"; err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
}
