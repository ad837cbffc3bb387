package traefik

import (
	"encoding/json"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

// badConfigs are blocks that must be refused.
var badConfigs = []plugintest.BadConfig{
	{Name: "a key that is none", Config: json.RawMessage(`{"htpPort": 80}`), Path: "htpPort"},
	{Name: "a port twice", Config: json.RawMessage(`{"httpPort": 443, "httpsPort": 443}`), Path: "httpsPort"},
	{Name: "a port out of range", Config: json.RawMessage(`{"httpPort": 65536}`), Path: "httpPort"},
	{Name: "an entry point that is there", Config: json.RawMessage(`{"entryPoints": {"web": {"port": 8080}}}`), Path: "entryPoints.web"},
	{Name: "an entry point on the port of web", Config: json.RawMessage(`{"entryPoints": {"more": {"port": 80}}}`), Path: "entryPoints.more.port"},
	{Name: "an entry point that listens where web does", Config: json.RawMessage(`{"entryPoints": {"more": {"port": 8000}}}`), Path: "entryPoints.more.listen"},
	{Name: "TLS over UDP", Config: json.RawMessage(`{"entryPoints": {"more": {"port": 53, "protocol": "UDP", "tls": true}}}`), Path: "entryPoints.more.tls"},
	{Name: "trust in a name", Config: json.RawMessage(`{"forwardedHeaders": {"trustedIPs": ["10.0.0.0/8", "lb.example"]}}`), Path: "forwardedHeaders.trustedIPs[1]"},
	{Name: "a secret without a namespace", Config: json.RawMessage(`{"defaultCertificate": "cert"}`), Path: "defaultCertificate"},
	{Name: "a resolver without a challenge", Config: json.RawMessage(`{"acme": {"le": {"email": "a@b.test"}}}`), Path: "acme.le"},
	{Name: "a resolver with two challenges", Config: json.RawMessage(`{"acme": {"le": {"email": "a@b.test", "httpChallenge": true, "tlsChallenge": true}}}`), Path: "acme.le"},
	{Name: "two accounts", Config: json.RawMessage(`{"acme": {"a": {"email": "a@b.test", "tlsChallenge": true}, "b": {"email": "b@b.test", "tlsChallenge": true}}}`), Path: "acme.b.email"},
	{Name: "an authority that is no certificate", Config: json.RawMessage(`{"acme": {"le": {"email": "a@b.test", "tlsChallenge": true, "caCertificates": "/etc/ssl/ca.pem"}}}`), Path: "acme.le.caCertificates"},
	{Name: "an unknown static option", Config: json.RawMessage(`{"static": {"serverTransport": {}}}`), Path: "static.serverTransport"},
	{Name: "an unknown static option further in", Config: json.RawMessage(`{"static": {"serversTransport": {"insecure": true}}}`), Path: "static"},
	{Name: "statistics", Config: json.RawMessage(`{"static": {"global": {"sendAnonymousUsage": true}}}`), Path: "static.global"},
	{Name: "plugins", Config: json.RawMessage(`{"static": {"experimental": {"plugins": {"a": {"moduleName": "b"}}}}}`), Path: "static.experimental"},
	{Name: "an address", Config: json.RawMessage(`{"static": {"entryPoints": {"web": {"address": ":80"}}}}`), Path: "static.entryPoints.web.address"},
	{Name: "an entry point of static options alone", Config: json.RawMessage(`{"static": {"entryPoints": {"more": {}}}}`), Path: "static.entryPoints.more"},
	{Name: "a list for an object", Config: json.RawMessage(`{"static": {"tracing": [[1]]}}`), Path: "static"},
}

func good(t *testing.T, block string) config {
	t.Helper()
	cfg, problems := parseConfig([]byte(block))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return cfg
}

func TestStaticConfiguration(t *testing.T) {
	facts := sdk.Facts{
		PodGateways: []netip.Addr{netip.MustParseAddr("127.77.0.1"), netip.MustParseAddr("fd00:42::1")},
		NodeIPs:     []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}
	dir := t.TempDir()
	cfg := good(t, `{"httpPort": 81, "httpsPort": 444, "hostPorts": true, "redirectToHTTPS": true,
		"entryPoints": {"ssh": {"port": 2222}, "dns": {"port": 53, "listen": 5300, "protocol": "UDP"}},
		"forwardedHeaders": {"trustedIPs": ["10.0.0.0/8"]}, "proxyProtocol": {"insecure": true},
		"acme": {"le": {"email": "a@b.test", "dnsChallenge": {"provider": "rfc2136"}}},
		"static": {"entryPoints": {"web": {"http": {"middlewares": ["a@kubernetescrd"], "encodedCharacters": {"allowEncodedSlash": false}},
			"transport": {"lifeCycle": {"graceTimeOut": 7}}}}, "serversTransport": {"insecureSkipVerify": true}}}`)
	s, listeners, err := staticConfiguration(t.Context(), cfg, facts, dir)
	must(t, err)
	want := map[string]string{
		"web": "127.77.0.1:8000", "websecure": "127.77.0.1:8443", "ssh": "127.77.0.1:2222", "dns": "127.77.0.1:5300/udp",
		"web-2": "[fd00:42::1]:8000", "web-3": "192.0.2.1:81", "websecure-4": "[fd00:42::1]:8443", "websecure-5": "192.0.2.1:444",
		"dns-6": "[fd00:42::1]:5300/udp", "ssh-7": "[fd00:42::1]:2222", "ssh-8": "192.0.2.1:2222",
	}
	for name, ep := range s.EntryPoints {
		if name == internalName {
			if addr := netip.MustParseAddrPort(ep.Address); !addr.Addr().IsLoopback() {
				t.Errorf("the dashboard is at %s, want loopback", addr)
			}
		} else if ep.Address != want[name] {
			t.Errorf("entry point %s is at %s, want %q", name, ep.Address, want[name])
		}
	}
	if len(s.EntryPoints) != len(want)+1 {
		t.Errorf("%d entry points, want %d and the dashboard's", len(s.EntryPoints), len(want))
	}
	for _, l := range listeners {
		if l.host != strings.HasPrefix(l.config.Address, "192.0.2.1") {
			t.Errorf("listener %s at %s: host is %t", l.name, l.config.Address, l.host)
		}
	}
	web, secure := s.EntryPoints["web"], s.EntryPoints["websecure"]
	if web.HTTP.Middlewares[0] != "a@kubernetescrd" || time.Duration(web.Transport.LifeCycle.GraceTimeOut) != 7*time.Second || !s.ServersTransport.InsecureSkipVerify {
		t.Errorf("the raw options are not there: %+v", web)
	}
	if web.HTTP.EncodedCharacters.AllowEncodedSlash || !secure.HTTP.EncodedCharacters.AllowEncodedSlash {
		t.Error("encoded characters don't follow the raw options")
	}
	if web.HTTP.Redirections.EntryPoint.To != ":444" || secure.HTTP.TLS == nil || web.HTTP.TLS != nil {
		t.Errorf("the redirect leads to %s", web.HTTP.Redirections.EntryPoint.To)
	}
	if web.ForwardedHeaders.TrustedIPs[0] != "10.0.0.0/8" || web.ForwardedHeaders.Insecure || !web.ProxyProtocol.Insecure {
		t.Error("it doesn't trust whom it was told to")
	}
	if got := s.CertificatesResolvers["le"].ACME.Storage; got != dir+"/acme.json" {
		t.Errorf("ACME is kept in %s", got)
	}
	if s.Global.CheckNewVersion || s.Global.SendAnonymousUsage || s.Pilot != nil || s.Experimental != nil {
		t.Error("it would speak to strangers")
	}
}

// The node's ports 80 and 443 are the first ingress's.
func TestHostPortsOfTheSecondIngress(t *testing.T) {
	facts := sdk.Facts{PodGateways: []netip.Addr{netip.MustParseAddr("127.77.0.1")}, NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, KindRank: 1}
	for block, want := range map[string]int{`{"hostPorts": true}`: 0, `{"hostPorts": true, "httpPort": 81, "httpsPort": 444}`: 2} {
		_, listeners, err := staticConfiguration(t.Context(), good(t, block), facts, t.TempDir())
		must(t, err)
		if len(listeners) != want {
			t.Errorf("%s: it binds %d ports of the node, want %d", block, len(listeners), want)
		}
	}
}

func TestDefaultsTrustNobody(t *testing.T) {
	s, problem := good(t, "").base()
	if problem != nil {
		t.Fatal(problem)
	}
	for _, ep := range s.EntryPoints {
		if ep.ForwardedHeaders.Insecure || len(ep.ForwardedHeaders.TrustedIPs) > 0 || ep.ProxyProtocol != nil {
			t.Errorf("%+v", ep)
		}
	}
	if s.AccessLog != nil || s.Providers.KubernetesIngress != nil || s.Providers.KubernetesCRD == nil {
		t.Errorf("%+v", s)
	}
}

func TestVersionIsTraefiks(t *testing.T) {
	raw, err := os.ReadFile("go.mod")
	must(t, err)
	required := regexp.MustCompile(`github.com/traefik/traefik/v2 v(\S+)`).FindSubmatch(raw)
	if required == nil || string(required[1]) != version {
		t.Errorf("go.mod requires Traefik %s, the component says %s", required, version)
	}
}

// FuzzConfig: no block makes it panic, and what is taken can be built.
func FuzzConfig(f *testing.F) {
	for _, bad := range badConfigs {
		f.Add([]byte(bad.Config))
	}
	f.Add([]byte(`{"static": {"metrics": {"prometheus": {"buckets": [0.1]}}}}`))
	f.Fuzz(func(t *testing.T, block []byte) {
		cfg, problems := parseConfig(block)
		if len(problems) > 0 {
			return
		}
		if _, problem := cfg.base(); problem != nil {
			t.Error(problem)
		}
	})
}
