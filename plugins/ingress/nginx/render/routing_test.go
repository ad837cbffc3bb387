package render_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

func TestCanary(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"main", "next"} {
		s.backend(name)
	}
	s.service("empty")
	pair := func(host, backend string, given said) {
		s.ingress(host, nil, "^ "+host+".example/ main")
		given["canary"] = "true"
		s.ingress(host+"-canary", given, "^ "+host+".example/ "+backend)
	}
	pair("header", "next", said{"canary-by-header": "X-Canary", "canary-by-cookie": "canary"})
	pair("value", "next", said{"canary-by-header": "X-Canary", "canary-by-header-value": "v$2", "canary-weight": "0"})
	pair("pattern", "next", said{"canary-by-header": "X-Canary", "canary-by-header-pattern": "^v[0-9]+$"})
	pair("all", "next", said{"canary-weight": "100"})
	pair("none", "next", said{"canary-weight": "0"})
	pair("half", "next", said{"canary-weight": "500", "canary-weight-total": "1000"})
	pair("gone", "empty", said{"canary-weight": "100"})
	s.ingress("rewritten", said{"rewrite-target": "/new/$1"}, "~ rewritten.example/old/(.*) main")
	s.ingress("rewritten-canary", said{"canary": "true", "canary-weight": "100"}, "~ rewritten.example/old/(.*) next")
	s.start()
	for _, c := range []struct{ host, header, cookie, want string }{
		{"header", "", "", "main"},
		{"header", "always", "", "next"},
		{"header", "never", "canary=always", "main"},
		{"header", "other", "a=b; canary=always", "next"},
		{"header", "", "canary=never", "main"},
		{"header", "", "xcanary=always", "main"},
		{"value", "v$2", "", "next"},
		{"value", "v$22", "", "main"},
		{"value", "V$2", "", "main"},
		{"value", "always", "", "main"},
		{"pattern", "v12", "", "next"},
		{"pattern", "w12", "", "main"},
		{"all", "", "", "next"},
		{"none", "", "", "main"},
		{"gone", "", "", "main"},
	} {
		got := s.get("http://"+c.host+".example/", with("X-Canary", c.header), with("Cookie", c.cookie)).from()
		if got != c.want {
			t.Errorf("%s with header %q and cookie %q: answered by %s, want %s", c.host, c.header, c.cookie, got, c.want)
		}
	}
	if got := s.get("http://rewritten.example/old/x?y"); got.from() != "next" || got.path() != "/new/x?y" {
		t.Errorf("a canary with a rewrite: %s saw %s", got.from(), got.path())
	}
	seen := map[string]int{}
	for range 200 {
		seen[s.get("http://half.example/").from()]++
	}
	// Fewer than 50 of 200 fair throws: less than one in 10^12.
	if seen["main"] < 50 || seen["next"] < 50 || len(seen) != 2 {
		t.Errorf("half and half: %v", seen)
	}
}

func TestAffinity(t *testing.T) {
	s := newSite(t)
	var endpoints []netip.AddrPort
	for n := range 5 {
		endpoints = append(endpoints, serve(t, echo(fmt.Sprintf("pod-%d", n))))
	}
	s.service("web", endpoints...)
	s.ingress("sticky", said{"affinity": "cookie", "session-cookie-name": "my-route", "session-cookie-expires": "172800",
		"session-cookie-samesite": "Lax", "session-cookie-path": "/app"}, "^ sticky.example/ web")
	s.ingress("loose", nil, "^ loose.example/ web")
	s.ingress("hash", said{"upstream-hash-by": "$arg_user"}, "^ hash.example/ web")
	s.start()
	first := s.get("http://sticky.example/app").Header.Get("Set-Cookie")
	value, attributes, _ := strings.Cut(first, "; ")
	if !strings.HasPrefix(value, "my-route=") || attributes != "Path=/app; Max-Age=172800; HttpOnly; SameSite=Lax" {
		t.Errorf("Set-Cookie: %s", first)
	}
	all := map[string]bool{}
	for range 40 {
		client := s.client()
		client.Jar, _ = cookiejar.New(nil)
		pods := map[string]bool{}
		for range 5 {
			pods[s.do(client, "http://sticky.example/app").from()] = true
		}
		if len(pods) != 1 {
			t.Fatalf("a client was answered by %v", pods)
		}
		for pod := range pods {
			all[pod] = true
		}
	}
	if len(all) < 3 {
		t.Errorf("40 clients went to %v only", all)
	}
	if got := s.get("http://sticky.example/app", with("Cookie", value)).Header.Get("Set-Cookie"); got != "" {
		t.Errorf("a client with a cookie gets another: %s", got)
	}
	loose, hashed := map[string]bool{}, map[string]bool{}
	for range 50 {
		loose[s.get("http://loose.example/").from()] = true
		hashed[s.get("http://hash.example/?user=jane").from()] = true
	}
	if len(loose) != 5 || len(hashed) != 1 {
		t.Errorf("without affinity: %v; by a hash: %v", loose, hashed)
	}
}

func TestExternalAuth(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	asked := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Token") != "good" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-User", "jane of "+r.Method+" "+r.Header.Get("X-Original-Url")+" "+r.Host)
	}))
	s.resolver = []netip.AddrPort{names(t, map[string]string{"auth.example.": "127.0.0.1"})}
	url := fmt.Sprintf("http://auth.example:%d/check", asked.Port())
	s.ingress("auth", said{"auth-url": url, "auth-response-headers": "X-User", "auth-method": "POST"}, "^ auth.example/ web")
	s.ingress("signin", said{"auth-url": url, "auth-signin": "https://login.example/start"}, "^ signin.example/ web")
	s.ingress("rd", said{"auth-url": url, "auth-signin": "https://$host/start?rd=$escaped_request_uri"}, "^ rd.example/ web")
	s.ingress("any", said{"auth-url": "http://$host/check"}, "^ /any web")
	s.ingress("chosen", said{"auth-url": "http://$http_x_server/check"}, "^ chosen.example/ web")
	s.ingress("node", said{"auth-url": "http://127.0.0.1:10248/"}, "^ node.example/ web")
	s.start()
	if got := s.get("http://auth.example/"); got.StatusCode != 401 {
		t.Errorf("without a token: %s", got.Status)
	}
	got := s.get("http://auth.example/a?b", with("X-Token", "good"), with("X-User", "root"))
	if want := fmt.Sprintf("jane of POST http://auth.example/a?b auth.example:%d", asked.Port()); got.saw("X-User") != want {
		t.Errorf("the backend saw the user %q, want %q", got.saw("X-User"), want)
	}
	for url, want := range map[string]string{
		"http://signin.example/a?b=c&d": "https://login.example/start?rd=http://signin.example/a?b=c%26d",
		"http://rd.example/a?b=c&d&e":   "https://rd.example/start?rd=/a?b=c%26d%26e",
	} {
		if got := s.get(url); got.StatusCode != 302 || got.Header.Get("Location") != want {
			t.Errorf("%s: %s, %s, want %s", url, got.Status, got.Header.Get("Location"), want)
		}
	}
	for url, what := range map[string]string{"http://node.example/": "of the node itself", "http://evil.example/any": "of any host",
		"http://chosen.example/": "of a host that the client names"} {
		if got := s.get(url).from(); got != "503" {
			t.Errorf("an auth-url %s: %s, want 503", what, got)
		}
	}
	if got := s.get("http://rd.example/_k3m_auth_x").StatusCode; got == 200 {
		t.Error("the controller's own paths can be reached")
	}
}

func TestLimits(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	s.ingress("few", said{"limit-rpm": "1", "limit-burst-multiplier": "3"}, "^ few.example/ web")
	s.ingress("free", said{"limit-rpm": "1", "limit-burst-multiplier": "3", "limit-whitelist": "127.0.0.0/8"}, "^ free.example/ web")
	s.ingress("body", said{"proxy-body-size": "10"}, "^ body.example/ web")
	held, release := make(chan struct{}), make(chan struct{})
	s.service("slow", serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		held <- struct{}{}
		<-release
	})))
	s.ingress("one", said{"limit-connections": "1"}, "^ one.example/ slow")
	s.start()
	count := func(url string) (served int) {
		for range 20 {
			if s.get(url).StatusCode == 200 {
				served++
			}
		}
		return served
	}
	if n := count("http://few.example/"); n != 4 {
		t.Errorf("%d requests served, want 1 and a burst of 3", n)
	}
	if n := count("http://free.example/"); n != 20 {
		t.Errorf("%d requests of a free address served, want 20", n)
	}
	big := func(r *http.Request) {
		r.Method = http.MethodPost
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("12345678901")), 11
	}
	if got := s.get("http://body.example/", big).StatusCode; got != 413 {
		t.Errorf("a body that is too big: %d, want 413", got)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.get("http://one.example/")
	}()
	<-held
	if got := s.get("http://one.example/").StatusCode; got != 503 {
		t.Errorf("a second connection: %d, want 503", got)
	}
	close(release)
	<-done
}

func TestCustomErrors(t *testing.T) {
	s := newSite(t)
	s.service("web", serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) })))
	s.service("empty")
	s.backend("errors")
	s.ingress("own", said{"custom-http-errors": "404,503", "default-backend": "errors"}, "^ own.example/x web")
	s.ingress("empty", said{"default-backend": "errors"}, "^ empty.example/x empty")
	s.ingress("plain", nil, "^ plain.example/ web")
	s.start()
	got := s.get("http://own.example/x?y", with("Accept", "text/x"))
	for header, want := range map[string]string{"X-Code": "404", "X-Format": "text/x", "X-Original-Uri": "/x?y", "X-Namespace": "default",
		"X-Ingress-Name": "own", "X-Service-Name": "web", "X-Service-Port": "web"} {
		if got.saw(header) != want {
			t.Errorf("%s: %q, want %q", header, got.saw(header), want)
		}
	}
	if got := s.get("http://empty.example/x").from(); got != "errors" {
		t.Errorf("a backend without endpoints: %s, want errors", got)
	}
	if got := s.get("http://plain.example/").from(); got != "404" {
		t.Errorf("an Ingress without error pages: %s, want 404", got)
	}
}

func TestTLS(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	s.tlsSecret("one", "one.example")
	s.tlsSecret("star", "*.star.example")
	for host, secret := range map[string]string{"one.example": "one", "x.star.example": "star", "*.star.example": "star", "missing.example": "missing"} {
		s.ingress(host, nil, "^ "+host+"/ web").Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{host}, SecretName: secret}}
	}
	s.start()
	for host, want := range map[string]string{"one.example": "one.example", "x.star.example": "*.star.example", "y.star.example": "*.star.example", "z.y.star.example": "default.invalid",
		"missing.example": "default.invalid", "other.example": "default.invalid"} {
		got := s.get("https://" + host + "/")
		if name := got.TLS.PeerCertificates[0].DNSNames[0]; name != want {
			t.Errorf("%s: the certificate of %s, want %s", host, name, want)
		}
		if got.ProtoMajor != 2 {
			t.Errorf("%s: %s, want HTTP/2", host, got.Proto)
		}
	}
	if got := s.get("https://one.example/").saw("X-Forwarded-Proto"); got != "https" {
		t.Errorf("X-Forwarded-Proto: %s", got)
	}
}

func TestProtocols(t *testing.T) {
	s := newSite(t)
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Backend", "secure "+r.TLS.ServerName)
	}))
	t.Cleanup(secure.Close)
	s.service("secure", netip.MustParseAddrPort(secure.Listener.Addr().String()))
	grpc := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("X-Backend", fmt.Sprintf("grpc %d", r.ProtoMajor))
		w.Header().Set("Trailer:Grpc-Status", "0")
		_, _ = io.Copy(w, r.Body)
	}))
	grpc.Config.Protocols = new(http.Protocols)
	grpc.Config.Protocols.SetUnencryptedHTTP2(true)
	grpc.Start()
	t.Cleanup(grpc.Close)
	s.service("grpc", netip.MustParseAddrPort(grpc.Listener.Addr().String()))
	s.ingress("secure", said{"backend-protocol": "HTTPS"}, "^ secure.example/ secure")
	s.ingress("named", said{"backend-protocol": "HTTPS", "proxy-ssl-server-name": "on", "proxy-ssl-name": "inner.example"},
		"^ named.example/ secure")
	s.ingress("plain", nil, "^ plain.example/ secure")
	s.ingress("grpc", said{"backend-protocol": "GRPC"}, "^ grpc.example/ grpc")
	s.start()
	// Connections to backends are kept, and never mixed up.
	for range 5 {
		for host, want := range map[string]string{"secure": "secure", "named": "secure inner.example", "plain": "400"} {
			if got := s.get("http://" + host + ".example/").from(); strings.TrimSpace(got) != want {
				t.Errorf("HTTPS: %s: answered by %q, want %q", host, got, want)
			}
		}
	}
	got := s.get("https://grpc.example/pkg.Service/Call", func(r *http.Request) {
		r.Method, r.Body = http.MethodPost, io.NopCloser(strings.NewReader("payload"))
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Te", "trailers")
	})
	if got.from() != "grpc 2" || got.body != "payload" || got.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("gRPC: %s, %q, %v", got.from(), got.body, got.Trailer)
	}
}

func TestWebSocket(t *testing.T) {
	s := newSite(t)
	s.service("web", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "upgrade" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		conn, both, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := both.ReadString('\n')
		fmt.Fprint(conn, "echo "+line)
	})))
	s.ingress("ws", nil, "^ ws.example/ web")
	s.start()
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(t.Context(), "tcp", s.https.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: ws.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v", response)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := reader.ReadString('\n'); line != "echo hello\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// An endpoint that is gone costs no request: the next one is asked.
func TestNextEndpoint(t *testing.T) {
	s := newSite(t)
	var served atomic.Int64
	alive := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
	s.service("web", alive, freePort(t))
	s.ingress("web", nil, "^ web.example/ web")
	s.start()
	for range 20 {
		if got := s.get("http://web.example/", func(r *http.Request) { r.Method = http.MethodPost }).StatusCode; got != 200 {
			t.Fatalf("%d", got)
		}
	}
	if served.Load() != 20 {
		t.Errorf("%d requests served, want 20", served.Load())
	}
}
