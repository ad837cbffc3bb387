package render_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
)

// many makes a cluster of n Ingresses, one in ten with annotations of every kind.
func many(t testing.TB, n int) *site {
	s := newSite(t)
	s.http, s.https = netip.MustParseAddrPort("127.0.0.1:8081"), netip.MustParseAddrPort("127.0.0.1:8444")
	for i := range n {
		service := fmt.Sprintf("svc-%d", i)
		s.service(service, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 42, byte(i >> 8), byte(i)}), 8080),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 43, byte(i >> 8), byte(i)}), 8080))
		var given said
		if i%10 == 0 {
			given = said{"proxy-read-timeout": "120", "enable-cors": "true", "affinity": "cookie", "limit-rps": "10",
				"whitelist-source-range": "10.0.0.0/8", "proxy-body-size": "8m"}
		}
		host := fmt.Sprintf("host-%d.apps.example.com", i)
		s.ingress(service, given, "^ "+host+"/ "+service, "^ "+host+"/api "+service)
	}
	return s
}

// The order in which objects come doesn't matter: the same ones make the same bytes.
func TestDeterminism(t *testing.T) {
	s := many(t, 200)
	var first []byte
	for range 3 {
		out, set := s.translate()
		rendered, err := render.Render(out.Config, set, s.env2(t))
		if err != nil {
			t.Fatal(err)
		}
		conf := rendered.Files[0].Data
		if first == nil {
			first = conf
		}
		if !bytes.Equal(first, conf) {
			t.Fatal("the same objects in another order make another configuration")
		}
		rand.Shuffle(len(s.ingresses), func(i, j int) { s.ingresses[i], s.ingresses[j] = s.ingresses[j], s.ingresses[i] })
	}
}

// env2 is an environment that is rendered for and not run in.
func (s *site) env2(t testing.TB) render.Env {
	t.Helper()
	n, err := render.ParseVersion("nginx version: nginx/1.22.1\nconfigure arguments: --with-http_ssl_module --with-http_v2_module " +
		"--with-http_realip_module --with-http_auth_request_module --with-http_stub_status_module")
	if err != nil {
		t.Fatal(err)
	}
	return render.Env{Dir: "/run/k3m", RunDir: "/run/k3m", HTTP: []netip.AddrPort{s.http}, HTTPS: []netip.AddrPort{s.https},
		Status: "/run/k3m/status.sock", AccessLog: "/run/k3m/access.log", ErrorLog: "stderr", Nginx: n,
		Resolver: []netip.AddrPort{netip.MustParseAddrPort("10.43.0.10:53")}}
}

func BenchmarkTranslate(b *testing.B) {
	s := many(b, 10000)
	b.ReportAllocs()
	for b.Loop() {
		s.translate()
	}
}

func BenchmarkRender(b *testing.B) {
	s := many(b, 10000)
	out, set := s.translate()
	env := s.env2(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := render.Render(out.Config, set, env); err != nil {
			b.Fatal(err)
		}
	}
}
