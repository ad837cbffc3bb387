package render_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"
)

// A proxy in front is believed where the ConfigMap says so.
func TestForwardedHeaders(t *testing.T) {
	s := newSite(t)
	s.config = map[string]string{"use-forwarded-headers": "true", "compute-full-forwarded-for": "true", "proxy-real-ip-cidr": "127.0.0.0/8"}
	s.backend("web")
	s.ingress("web", said{"whitelist-source-range": "192.0.2.0/24"}, "^ web.example/ web")
	s.ingress("secure", said{"force-ssl-redirect": "true"}, "^ secure.example/ web")
	s.start()
	got := s.get("http://web.example/", with("X-Forwarded-For", "192.0.2.1"), with("X-Forwarded-Proto", "https"),
		with("X-Forwarded-Port", "8443"), with("X-Forwarded-Host", "outer.example"))
	for header, want := range map[string]string{"Host": "outer.example", "X-Real-Ip": "192.0.2.1", "X-Forwarded-For": "192.0.2.1, 127.0.0.1",
		"X-Forwarded-Proto": "https", "X-Forwarded-Port": "8443", "X-Forwarded-Host": "outer.example"} {
		if got.saw(header) != want {
			t.Errorf("%s: %q, want %q", header, got.saw(header), want)
		}
	}
	if got := s.get("http://web.example/").from(); got != "403" {
		t.Errorf("a client of another address: %s, want 403", got)
	}
	if got := s.get("http://secure.example/", with("X-Forwarded-Proto", "https")).from(); got != "web" {
		t.Errorf("a client that came by HTTPS: %s, want web", got)
	}
}

func TestProxyProtocol(t *testing.T) {
	s := newSite(t)
	s.config = map[string]string{"use-proxy-protocol": "true"}
	s.backend("web")
	s.ingress("web", nil, "^ web.example/ web")
	s.start()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.http.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprint(conn, "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\nGET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	found := false
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		found = found || lines.Text() == "X-Real-Ip: 192.0.2.1"
	}
	if !found {
		t.Error("the backend doesn't see the client's address")
	}
}

// What is global is there in every location, and what compresses does.
func TestGlobalSettings(t *testing.T) {
	s := newSite(t)
	s.config = map[string]string{"denylist-source-range": "127.0.0.1", "hide-headers": "X-Backend", "use-gzip": "true", "gzip-min-length": "1",
		"gzip-types": "text/plain", "custom-http-errors": "418"}
	s.backend("web")
	s.ingress("closed", nil, "^ closed.example/ web")
	s.ingress("open", said{"denylist-source-range": "10.0.0.0/8"}, "^ open.example/ web")
	s.start()
	if got := s.get("http://closed.example/").StatusCode; got != 403 {
		t.Errorf("a denied address: %d, want 403", got)
	}
	got := s.get("http://open.example/", with("Accept-Encoding", "gzip"))
	if got.StatusCode != 200 || got.Header.Get("X-Backend") != "" || got.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%s, %v", got.Status, got.Header)
	}
}
