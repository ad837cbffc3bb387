package coredns

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/k3m-io/k3m/sdk"
)

var codecs = scheme.Codecs

// patience bounds a wait for what must come.
const patience = 20 * time.Second

// reports remembers what the component says of itself.
type reports struct {
	mu      sync.Mutex
	changed chan struct{}
	health  string // "ready", or why not
	serving []sdk.Endpoint
}

func newReports() *reports { return &reports{changed: make(chan struct{}), health: "starting"} }

func (r *reports) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *reports) Ready()                 { r.change(func() { r.health = "ready" }) }
func (r *reports) Degraded(reason string) { r.change(func() { r.health = reason }) }
func (r *reports) Serve(e ...sdk.Endpoint) {
	r.change(func() { r.serving = e })
}

// wait returns when the health holds the words.
func (r *reports) wait(t testing.TB, words string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		health, changed := r.health, r.changed
		r.mu.Unlock()
		if strings.Contains(health, words) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the component says %q, want %q", health, words)
		}
	}
}

// fixture is a component at work.
type fixture struct {
	*server
	api        *testAPI
	reports    *reports
	resolvConf string
	stateDir   string
	stop       func()
}

// option changes a fixture before it starts.
type option func(*fixture)

// withState starts it with the state of another.
func withState(dir string) option { return func(f *fixture) { f.stateDir = dir } }

// start runs the component with the upstreams in its resolv.conf.
func start(t testing.TB, api *testAPI, cfg string, upstreams []string, options ...option) *fixture {
	t.Helper()
	needNetwork(t)
	f := &fixture{api: api, reports: newReports(), stateDir: t.TempDir(), resolvConf: filepath.Join(t.TempDir(), "resolv.conf")}
	for _, o := range options {
		o(f)
	}
	f.setUpstreams(t, upstreams...)
	parsed, problems := parseConfig([]byte(cfg))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	must(t, register())
	log := hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: hclog.Info})
	captureLogs(log)
	t.Cleanup(func() { captureLogs(hclog.NewNullLogger()) })
	a, err := newAPI(api.kubeconfig(t), func() {})
	must(t, err)
	f.server = newServer(parsed, environment{
		facts: sdk.Facts{
			NodeName: "node-1", ClusterDomain: "cluster.local",
			ClusterDNS:  []netip.Addr{netip.MustParseAddr(clusterDNS)},
			PodGateways: []netip.Addr{netip.MustParseAddr(gateway4), netip.MustParseAddr(gateway6)},
		},
		stateDir: f.stateDir, log: log, report: f.reports,
	}, a)
	f.resolvers.files = []string{f.resolvConf}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("run does not end")
		}
	})
	t.Cleanup(f.stop)
	return f
}

func (f *fixture) setUpstreams(t testing.TB, upstreams ...string) {
	t.Helper()
	var text strings.Builder
	for _, u := range upstreams {
		text.WriteString("nameserver " + u + "\n")
	}
	must(t, os.WriteFile(f.resolvConf, []byte(text.String()), 0o644))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// upstream is a DNS server outside the cluster.
type upstream struct {
	mu      sync.Mutex
	queries []string
}

// startUpstream answers A queries for names under example.org with 203.0.113.7, with
// handle in place of that if it is not nil.
func startUpstream(t testing.TB, addr string, handle dns.HandlerFunc) *upstream {
	t.Helper()
	u := &upstream{}
	var started sync.WaitGroup
	started.Add(1)
	server := &dns.Server{Addr: addr + ":53", Net: "udp", NotifyStartedFunc: started.Done,
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			u.mu.Lock()
			u.queries = append(u.queries, r.Question[0].Name)
			u.mu.Unlock()
			if handle != nil {
				handle(w, r)
				return
			}
			reply := new(dns.Msg).SetReply(r)
			switch name := strings.ToLower(r.Question[0].Name); {
			case !dns.IsSubDomain("example.org.", name):
				reply.Rcode = dns.RcodeNameError
			case r.Question[0].Qtype == dns.TypeA:
				reply.Answer = []dns.RR{rr(r.Question[0].Name + " 300 IN A 203.0.113.7")}
			}
			_ = w.WriteMsg(reply)
		})}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	started.Wait()
	t.Cleanup(func() {
		_ = server.Shutdown()
		if err := <-ended; err != nil {
			t.Errorf("the upstream on %s: %v", addr, err)
		}
	})
	return u
}

func (u *upstream) asked(name string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for _, q := range u.queries {
		if q == name {
			n++
		}
	}
	return n
}

func rr(text string) dns.RR {
	r, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return r
}

// ask sends one query over UDP.
func ask(t testing.TB, server, name string, qtype uint16) (*dns.Msg, error) {
	t.Helper()
	return exchange(t, "udp", server, name, qtype)
}

func exchange(t testing.TB, network, server, name string, qtype uint16) (*dns.Msg, error) {
	t.Helper()
	client := &dns.Client{Net: network, Timeout: 8 * time.Second}
	reply, _, err := client.ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(name, qtype),
		netip.AddrPortFrom(netip.MustParseAddr(server), dnsPort).String())
	return reply, err
}

// answers are the reply's response code and the data of its answers, sorted.
func answers(t testing.TB, server, name string, qtype uint16) (string, []string) {
	t.Helper()
	reply, err := ask(t, server, name, qtype)
	if err != nil {
		return err.Error(), nil
	}
	var data []string
	for _, answer := range reply.Answer {
		text := strings.TrimPrefix(answer.String(), answer.Header().String())
		data = append(data, text)
	}
	slices.Sort(data)
	return dns.RcodeToString[reply.Rcode], data
}

// wantAnswer waits until a query is answered so.
func wantAnswer(t testing.TB, name string, qtype uint16, rcode string, want ...string) {
	t.Helper()
	var code string
	var got []string
	// What is waited for comes by a watch, without a sign that it has been taken in.
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if code, got = answers(t, gateway4, name, qtype); code == rcode && slices.Equal(got, want) {
			return
		}
	}
	t.Errorf("%s %s: %s %q, want %s %q", name, dns.TypeToString[qtype], code, got, rcode, want)
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// fill puts a small cluster into the API.
func fill(a *testAPI) {
	a.put("namespaces", &corev1.Namespace{ObjectMeta: meta("", "default")})
	a.put("namespaces", &corev1.Namespace{ObjectMeta: meta("", "kube-system")})
	a.put("services", &corev1.Service{ObjectMeta: meta("default", "web"), Spec: corev1.ServiceSpec{
		ClusterIP: "10.43.1.2", ClusterIPs: []string{"10.43.1.2", "fd43::12"}, Type: corev1.ServiceTypeClusterIP,
		Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
	}})
	a.put("services", &corev1.Service{ObjectMeta: meta("default", "db"), Spec: corev1.ServiceSpec{
		ClusterIP: "None", ClusterIPs: []string{"None"}, Type: corev1.ServiceTypeClusterIP,
		Ports: []corev1.ServicePort{{Name: "pg", Port: 5432, Protocol: corev1.ProtocolTCP}},
	}})
	a.put("services", &corev1.Service{ObjectMeta: meta("default", "away"), Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeExternalName, ExternalName: "www.example.org",
	}})
	port, name, protocol := int32(5432), "pg", corev1.ProtocolTCP
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta("default", "db-1"), AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}}}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: "db"}
	for _, e := range []struct{ addr, host string }{{"10.42.0.7", "db-0"}, {"10.42.1.8", "db-1"}} {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{e.addr}, Hostname: &e.host})
	}
	a.put("endpointslices", slice)
	a.put("nodes", node("node-1", "192.0.2.11", "2001:db8::11"))
}

func node(name string, addrs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: meta("", name)}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

func customMap(data map[string]string) *corev1.ConfigMap {
	m := &corev1.ConfigMap{ObjectMeta: meta(customNamespace, customName), Data: data}
	m.UID = "42"
	return m
}
