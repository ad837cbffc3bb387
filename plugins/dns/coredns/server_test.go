package coredns

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestNames(t *testing.T) {
	api := newTestAPI(t)
	fill(api)
	needNetwork(t)
	outside := startUpstream(t, upstreamA, nil)
	f := start(t, api, `{}`, []string{upstreamA})
	f.reports.wait(t, "ready")

	for _, c := range []struct {
		name  string
		qtype uint16
		rcode string
		want  []string
	}{
		{"web.default.svc.cluster.local.", dns.TypeA, "NOERROR", []string{"10.43.1.2"}},
		{"WEB.Default.svc.cluster.local.", dns.TypeA, "NOERROR", []string{"10.43.1.2"}},
		{"web.default.svc.cluster.local.", dns.TypeAAAA, "NOERROR", []string{"fd43::12"}},
		{"web.default.svc.cluster.local.", dns.TypeMX, "NOERROR", nil},
		{"nothing.default.svc.cluster.local.", dns.TypeA, "NXDOMAIN", nil},
		{"_http._tcp.web.default.svc.cluster.local.", dns.TypeSRV, "NOERROR", []string{"0 50 80 web.default.svc.cluster.local."}},
		{"db.default.svc.cluster.local.", dns.TypeA, "NOERROR", []string{"10.42.0.7", "10.42.1.8"}},
		{"db-1.db.default.svc.cluster.local.", dns.TypeA, "NOERROR", []string{"10.42.1.8"}},
		{"_pg._tcp.db.default.svc.cluster.local.", dns.TypeSRV, "NOERROR", []string{
			"0 50 5432 db-0.db.default.svc.cluster.local.", "0 50 5432 db-1.db.default.svc.cluster.local."}},
		{"10-42-0-9.default.pod.cluster.local.", dns.TypeA, "NOERROR", []string{"10.42.0.9"}},
		{"2-1-43-10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN", nil},
		{"2.1.43.10.in-addr.arpa.", dns.TypePTR, "NOERROR", []string{"web.default.svc.cluster.local."}},
		{"7.0.42.10.in-addr.arpa.", dns.TypePTR, "NOERROR", []string{"db-0.db.default.svc.cluster.local."}},
		{reverse("fd43::12"), dns.TypePTR, "NOERROR", []string{"web.default.svc.cluster.local."}},
		{"away.default.svc.cluster.local.", dns.TypeA, "NOERROR", []string{"203.0.113.7", "www.example.org."}},
		{"cluster.local.", dns.TypeNS, "NOERROR", []string{"ns.dns.cluster.local."}},
		{"ns.dns.cluster.local.", dns.TypeA, "NOERROR", []string{clusterDNS}},
		{"dns-version.cluster.local.", dns.TypeTXT, "NOERROR", []string{`"1.1.0"`}},
		{"node-1.", dns.TypeA, "NOERROR", []string{"192.0.2.11"}},
		{"Node-1.", dns.TypeAAAA, "NOERROR", []string{"2001:db8::11"}},
		{"node-1.", dns.TypeMX, "NOERROR", nil},
		{"11.2.0.192.in-addr.arpa.", dns.TypePTR, "NOERROR", []string{"node-1."}},
		{reverse("2001:db8::11"), dns.TypePTR, "NOERROR", []string{"node-1."}},
		{"www.example.org.", dns.TypeA, "NOERROR", []string{"203.0.113.7"}},
		{"www.example.com.", dns.TypeA, "NXDOMAIN", nil},
	} {
		t.Run(c.name+" "+dns.TypeToString[c.qtype], func(t *testing.T) { wantAnswer(t, c.name, c.qtype, c.rcode, c.want...) })
	}
	if n := outside.asked("web.default.svc.cluster.local."); n > 0 {
		t.Errorf("a name of the cluster was asked for outside, %d times", n)
	}
	t.Run("over TCP and IPv6", func(t *testing.T) {
		for _, server := range []string{gateway4, gateway6} {
			for _, network := range []string{"udp", "tcp"} {
				reply, err := exchange(t, network, server, "web.default.svc.cluster.local.", dns.TypeA)
				if err != nil || len(reply.Answer) != 1 {
					t.Errorf("%s over %s: %v %v", server, network, reply, err)
				}
			}
		}
	})
	t.Run("another address of the host answers nothing", func(t *testing.T) {
		for _, network := range []string{"udp", "tcp"} {
			if reply, err := exchange(t, network, lan4, "web.default.svc.cluster.local.", dns.TypeA); err == nil {
				t.Errorf("%s over %s: %v", lan4, network, reply)
			}
		}
	})
	t.Run("answers from outside are kept", func(t *testing.T) {
		before := outside.asked("www.example.org.")
		for range 3 {
			wantAnswer(t, "www.example.org.", dns.TypeA, "NOERROR", "203.0.113.7")
		}
		if n := outside.asked("www.example.org."); n != before || n == 0 {
			t.Errorf("asked %d times more", n-before)
		}
	})
	t.Run("nodes come, change and go", func(t *testing.T) {
		api.put("nodes", node("node-2", "192.0.2.12"))
		wantAnswer(t, "node-2.", dns.TypeA, "NOERROR", "192.0.2.12")
		api.put("nodes", node("node-2", "192.0.2.13"))
		wantAnswer(t, "node-2.", dns.TypeA, "NOERROR", "192.0.2.13")
		api.remove("nodes", "/node-2")
		wantAnswer(t, "node-2.", dns.TypeA, "NXDOMAIN")
	})
	t.Run("it says where it serves", func(t *testing.T) {
		f.reports.mu.Lock()
		defer f.reports.mu.Unlock()
		want := fmt.Sprint(endpoints(f.gateways))
		if got := fmt.Sprint(f.reports.serving); got != want || len(f.reports.serving) != 2 {
			t.Errorf("serves %s, want %s", got, want)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		var text strings.Builder
		must(t, (&plugin{}).WriteMetrics(t.Context(), &text))
		for _, words := range []string{"coredns_dns_requests_total{", "coredns_cache_entries{", "coredns_forward_"} {
			if !strings.Contains(text.String(), words) {
				t.Errorf("no %s in the metrics", words)
			}
		}
		if strings.Contains(text.String(), "\ngo_") {
			t.Error("the process's own metrics are there, too")
		}
	})
}

// reverse is the name for a PTR query.
func reverse(addr string) string {
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		panic(err)
	}
	return name
}

func TestUnsyncedIsNeverNXDOMAIN(t *testing.T) {
	api := newTestAPI(t)
	fill(api)
	needNetwork(t)
	startUpstream(t, upstreamA, nil)
	api.holdAll()
	f := start(t, api, `{}`, []string{upstreamA})
	// External names are answered without the API.
	wantAnswer(t, "www.example.org.", dns.TypeA, "NOERROR", "203.0.113.7")
	t.Run("it says where it serves before it is ready", func(t *testing.T) {
		for serving := false; !serving; {
			f.reports.mu.Lock()
			health, changed := f.reports.health, f.reports.changed
			serving = len(f.reports.serving) == 2
			f.reports.mu.Unlock()
			if health == "ready" {
				t.Fatalf("it says %q", health)
			}
			if !serving {
				<-changed
			}
		}
	})

	// A query that has waited long enough is told that nobody knows.
	for _, name := range []string{"web.default.svc.cluster.local.", "2.1.43.10.in-addr.arpa."} {
		if code, got := answers(t, gateway4, name, dns.TypeA); code != "SERVFAIL" {
			t.Errorf("%s: %s %v", name, code, got)
		}
	}
	// One that waits when the names come is answered.
	answered := make(chan string)
	go func() {
		code, got := answers(t, gateway4, "web.default.svc.cluster.local.", dns.TypeA)
		answered <- fmt.Sprint(code, got)
	}()
	select {
	case got := <-answered:
		t.Errorf("answered %s before the names were known", got)
	case <-time.After(syncWait / 10):
	}
	api.release()
	if got := <-answered; got != "NOERROR[10.43.1.2]" {
		t.Errorf("answered %s", got)
	}
	f.reports.wait(t, "ready")
}

func TestUpstreams(t *testing.T) {
	needNetwork(t)
	api := newTestAPI(t)
	fill(api)
	first := startUpstream(t, upstreamA, nil)
	second := startUpstream(t, upstreamB, func(w dns.ResponseWriter, r *dns.Msg) {
		reply := new(dns.Msg).SetReply(r)
		reply.Answer = []dns.RR{rr(r.Question[0].Name + " 300 IN A 203.0.113.8")}
		_ = w.WriteMsg(reply)
	})
	f := start(t, api, `{"cacheSeconds": 0}`, nil)

	f.reports.wait(t, "names none")
	wantAnswer(t, "a.example.org.", dns.TypeA, "SERVFAIL")
	wantAnswer(t, "web.default.svc.cluster.local.", dns.TypeA, "NOERROR", "10.43.1.2")

	f.setUpstreams(t, clusterDNS, gateway4, "0.0.0.0", "nonsense") // none that can be asked
	f.reports.wait(t, "names none but the cluster's own")

	f.setUpstreams(t, upstreamA)
	f.reports.wait(t, "ready")
	wantAnswer(t, "b.example.org.", dns.TypeA, "NOERROR", "203.0.113.7")
	f.setUpstreams(t, "127.0.0.53", upstreamB) // the stub is left out when there is another
	wantAnswer(t, "c.example.org.", dns.TypeA, "NOERROR", "203.0.113.8")
	if first.asked("b.example.org.") == 0 || second.asked("c.example.org.") == 0 {
		t.Error("the upstreams were not asked")
	}
}

func TestUnreachableUpstream(t *testing.T) {
	needNetwork(t)
	// It takes queries and never answers.
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", upstreamA+":53")
	must(t, err)
	defer func() { must(t, conn.Close()) }()
	startUpstream(t, upstreamB, nil)
	api := newTestAPI(t)
	fill(api)
	f := start(t, api, `{"cacheSeconds": 0}`, []string{upstreamA})
	f.reports.wait(t, "ready")

	// The client's own patience is longer than any bound that is claimed.
	if code, got := answers(t, gateway4, "a.example.org.", dns.TypeA); code != "SERVFAIL" {
		t.Errorf("%s %v", code, got)
	}
	wantAnswer(t, "web.default.svc.cluster.local.", dns.TypeA, "NOERROR", "10.43.1.2")

	f.setUpstreams(t, upstreamA, upstreamB) // one of two answers
	for n := range 5 {
		wantAnswer(t, fmt.Sprintf("b%d.example.org.", n), dns.TypeA, "NOERROR", "203.0.113.7")
	}
}

func TestTryTimeKeepsTheBound(t *testing.T) {
	for n := 1; n <= maxUpstreams; n++ {
		tries := min(n, int(answerWithin/shortestTry))
		if all := time.Duration(tries) * tryTime(n); all > answerWithin {
			t.Errorf("%d upstreams take %s", n, all)
		}
	}
}

func TestLoop(t *testing.T) {
	needNetwork(t)
	api := newTestAPI(t)
	fill(api)
	// It asks the cluster's DNS whatever it is asked.
	looping := make(chan struct{})
	startUpstream(t, upstreamA, func(w dns.ResponseWriter, r *dns.Msg) {
		reply := new(dns.Msg).SetRcode(r, dns.RcodeServerFailure)
		select {
		case <-looping:
		default:
			client := &dns.Client{Timeout: time.Second}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if answer, _, err := client.ExchangeContext(ctx, r.Copy(), gateway4+":53"); err == nil {
				reply = answer
			}
		}
		reply.Id = r.Id
		_ = w.WriteMsg(reply)
	})
	defer close(looping)
	f := start(t, api, `{"cacheSeconds": 0}`, []string{upstreamA})
	f.reports.wait(t, "come back to this node in a loop")
	wantAnswer(t, "www.example.org.", dns.TypeA, "SERVFAIL")
	wantAnswer(t, "web.default.svc.cluster.local.", dns.TypeA, "NOERROR", "10.43.1.2")

	startUpstream(t, upstreamB, nil)
	f.setUpstreams(t, upstreamA, upstreamB) // the other is enough
	f.reports.wait(t, "ready")
	wantAnswer(t, "www.example.org.", dns.TypeA, "NOERROR", "203.0.113.7")
}
