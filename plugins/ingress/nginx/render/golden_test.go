package render_test

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/translate"
)

var update = flag.Bool("update", false, "write the golden files anew")

// What nginx is told for a small cluster, to be read. Other tests run such configurations.
func TestGolden(t *testing.T) {
	s := newSite(t)
	s.http, s.https = netip.MustParseAddrPort("10.42.0.1:8081"), netip.MustParseAddrPort("10.42.0.1:8444")
	s.service("web", netip.MustParseAddrPort("10.42.0.7:8080"), netip.MustParseAddrPort("10.42.1.9:8080"))
	s.service("next", netip.MustParseAddrPort("10.42.0.8:8080"))
	s.service("empty")
	s.ingress("shop", said{"affinity": "cookie", "proxy-body-size": "8m"}, "^ shop.example/ web", "= shop.example/health next").
		Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"shop.example"}}}
	s.ingress("shop-next", said{"canary": "true", "canary-by-header": "X-Next", "canary-weight": "10"}, "^ shop.example/ next")
	s.ingress("api", said{"use-regex": "true", "rewrite-target": "/$2", "whitelist-source-range": "10.0.0.0/8", "limit-rps": "10"},
		"~ *.api.example/v1(/|$)(.*) web", "^ *.api.example/empty empty")
	set := settings.Default()
	in := s.input(set)
	in.Certificate = &model.KeyPair{ID: "default"}
	rendered, err := render.Render(translate.Translate(in).Config, set, s.env2(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range rendered.Files {
		if file.Path != render.Conf {
			continue
		}
		if *update {
			if err := os.WriteFile("testdata/small.conf", file.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile("testdata/small.conf")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(file.Data, want) {
			t.Errorf("the configuration is not that of testdata/small.conf; -update writes it:\n%s", file.Data)
		}
	}
}
