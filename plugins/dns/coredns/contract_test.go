package coredns

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

// badConfigs are blocks that must be refused.
var badConfigs = []plugintest.BadConfig{
	{Name: "a key that is none", Config: json.RawMessage(`{"upstream": []}`), Path: "upstream"},
	{Name: "no upstreams", Config: json.RawMessage(`{"upstreams": []}`), Path: "upstreams"},
	{Name: "null", Config: json.RawMessage(`{"upstreams": null}`), Path: "upstreams"},
	{Name: "an upstream by name", Config: json.RawMessage(`{"upstreams": ["192.0.2.53", "dns.example.org"]}`), Path: "upstreams[1]"},
	{Name: "an upstream that can't be asked", Config: json.RawMessage(`{"upstreams": ["0.0.0.0"]}`), Path: "upstreams[0]"},
	{Name: "an upstream with a zone", Config: json.RawMessage(`{"upstreams": ["fe80::1%eth0"]}`), Path: "upstreams[0]"},
	{Name: "port 0", Config: json.RawMessage(`{"upstreams": ["192.0.2.53:0"]}`), Path: "upstreams[0]"},
	{Name: "too long", Config: json.RawMessage(`{"cacheSeconds": 3601}`), Path: "cacheSeconds"},
	{Name: "too few", Config: json.RawMessage(`{"cacheEntries": 10}`), Path: "cacheEntries"},
	{Name: "too many", Config: json.RawMessage(`{"cacheEntries": 1000000}`), Path: "cacheEntries"},
	{Name: "a word for a boolean", Config: json.RawMessage(`{"logQueries": "yes"}`), Path: "logQueries"},
}

func TestContract(t *testing.T) {
	needNetwork(t)
	api := newTestAPI(t)
	fill(api)
	startUpstream(t, upstreamA, nil)
	self, err := os.Executable()
	must(t, err)
	plugintest.Run(t, plugintest.Options{
		New:        New,
		Executable: self, // see TestMain
		Args:       []string{"dns.coredns"},
		Facts:      sdk.Facts{PodGateways: []netip.Addr{netip.MustParseAddr(gateway4), netip.MustParseAddr(gateway6)}},
		Kubeconfig: api.kubeconfig(t),
		Config:     json.RawMessage(`{"upstreams": ["` + upstreamA + `"], "cacheSeconds": 60, "cacheEntries": 2048, "logQueries": true}`),
		BadConfigs: badConfigs,
		WhileReady: func(t *testing.T, facts sdk.Facts) {
			wantAnswer(t, "web.default.svc.cluster.local.", dns.TypeA, "NOERROR", "10.43.1.2")
			wantAnswer(t, "www.example.org.", dns.TypeA, "NOERROR", "203.0.113.7")
		},
	})
}

func TestGoodConfig(t *testing.T) {
	cfg, problems := parseConfig([]byte(`{"upstreams": ["192.0.2.53", "192.0.2.54:5353", "2001:db8::53", "[2001:db8::53]:5353", "::ffff:192.0.2.55"]}`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := "192.0.2.53:53 192.0.2.54:5353 [2001:db8::53]:53 [2001:db8::53]:5353 192.0.2.55:53"
	if got := joinUpstreams(cfg.upstreams); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if cfg.CacheSeconds != 30 || cfg.CacheEntries != 10000 || cfg.LogQueries {
		t.Errorf("the defaults are %+v", cfg)
	}
}

func TestVersionIsCoreDNSs(t *testing.T) {
	raw, err := os.ReadFile("../../../go.mod")
	must(t, err)
	required := regexp.MustCompile(`coredns/coredns v(\S+)`).FindSubmatch(raw)
	if required == nil || string(required[1]) != version {
		t.Errorf("go.mod requires CoreDNS %s, the component says %s", required, version)
	}
}

// A gateway that is not there yet can be bound, and serves when it comes.
func TestAbsentGateway(t *testing.T) {
	needNetwork(t)
	s, err := listen(t.Context(), []netip.Addr{netip.MustParseAddr("10.42.99.1"), netip.MustParseAddr("fd42:99::1")}, nil, nil)
	must(t, err)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.close(ctx)
	}()
	if conn, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "10.42.99.1:53"); err == nil {
		conn.Close()
		t.Error("the address is there, so that nothing is tested")
	}
}
