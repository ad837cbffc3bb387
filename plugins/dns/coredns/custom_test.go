package coredns

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy/caddyfile"
	"github.com/miekg/dns"
)

func TestParseCustom(t *testing.T) {
	rules := customRules{
		upstreams: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")},
		self:      []netip.Addr{netip.MustParseAddr(clusterDNS), netip.MustParseAddr(gateway4)},
	}
	for _, c := range []struct{ name, key, text, want, problem string }{
		{name: "empty", key: "a.override"},
		{name: "a comment", key: "a.override", text: "# nothing\n"},
		{name: "a key of another sort", key: "zone.db", text: "import /etc/shadow"},
		{name: "a plugin", key: "a.override", text: "log", want: "    log\n"},
		{name: "two, in any order", key: "a.override", text: "rewrite name a.example.org b.example.org\nlog\nrewrite name c d\n",
			want: "    log\n    rewrite name a.example.org b.example.org\n    rewrite name c d\n"},
		{name: "a block", key: "a.override", text: "cache 60 {\n  success 100\n  serve_stale\n}",
			want: "    cache 60 {\n    success 100\n    serve_stale\n    }\n"},
		{name: "a server", key: "a.server", text: "example.org:53 example.net {\n  forward . 192.0.2.1 {\n policy round_robin\n }\n errors\n reload\n loop\n}\n",
			want: "example.org:53 example.net {\n    prometheus\n    errors\n    forward . 192.0.2.1 {\n    policy round_robin\n    }\n}\n"},
		{name: "a server without braces", key: "a.server", text: "example.org\nwhoami", want: "example.org {\n    prometheus\n    whoami\n}\n"},
		{name: "the node's resolvers", key: "a.server", text: "example.org {\n forward . /etc/resolv.conf\n}",
			want: "example.org {\n    prometheus\n    forward . 192.0.2.53:53 [2001:db8::53]:53\n}\n"},
		{name: "hosts inline", key: "a.override", text: "hosts {\n 192.0.2.1 a.example.org\n fallthrough\n}",
			want: "    hosts /dev/null {\n    192.0.2.1 a.example.org\n    fallthrough\n    }\n"},
		{name: "a template with quotes", key: "a.override", text: "template IN A example.org {\n match ^(.*)\\.example\\.org$\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n}",
			want: "    template IN A example.org {\n    match ^(.*)\\.example\\.org$\n    answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n    }\n"},
		{name: "TLS upstreams", key: "a.server", text: "a.org {\n forward . tls://192.0.2.1 tls://[2001:db8::1]:853 {\n tls_servername dns.example.org\n }\n}",
			want: "a.org {\n    prometheus\n    forward . tls://192.0.2.1 tls://[2001:db8::1]:853 {\n    tls_servername dns.example.org\n    }\n}\n"},
		{name: "a subnet", key: "a.server", text: "10.0.0.0/24 {\n whoami\n}", want: "10.0.0.0/24 {\n    prometheus\n    whoami\n}\n"},

		{name: "import", key: "a.override", text: "log\nimport /etc/shadow", problem: "a.override:2: import is not allowed"},
		{name: "import as a zone", key: "a.server", text: "import /etc/shadow", problem: "import is not allowed"},
		{name: "import in a block", key: "a.override", text: "cache {\n import /etc/shadow\n}", problem: "a.override:2: import"},
		{name: "a snippet", key: "a.server", text: "(x) {\n log\n}\n", problem: "snippets"},
		{name: "the environment", key: "a.override", text: "rewrite name a {$HOME}", problem: "variable"},
		{name: "the environment, Windows'", key: "a.override", text: "rewrite name a {%HOME%}", problem: "variable"},
		{name: "out of the block", key: "a.override", text: "log\n}\nexample.org {\n whoami", problem: "braces"},
		{name: "an open brace", key: "a.override", text: "cache {\n", problem: "braces"},
		{name: "an open quote", key: "a.override", text: "rewrite name \"a b", problem: "a.override"},
		{name: "an unknown plugin", key: "a.override", text: "rewrit name a b", problem: `did you mean "rewrite"?`},
		{name: "k3m's own", key: "a.override", text: "k3m", problem: "unknown plugin"},
		{name: "k3m's own cluster", key: "a.server", text: "example.org {\n cluster\n}", problem: "unknown plugin"},
		{name: "bind", key: "a.server", text: "example.org {\n bind 0.0.0.0\n whoami\n}", problem: "bind is not allowed here"},
		{name: "file", key: "a.server", text: "example.org {\n file /etc/shadow\n}", problem: "file is not allowed here: it reads files"},
		{name: "kubernetes", key: "a.server", text: "example.org {\n kubernetes example.org\n}", problem: "served already"},
		{name: "hosts from a file", key: "a.override", text: "hosts /etc/shadow", problem: "line 1: hosts: it reads no file here"},
		{name: "weights from a file", key: "a.override", text: "loadbalance weighted /etc/shadow", problem: "only round_robin"},
		{name: "certificates from files", key: "a.server", text: "a.org {\n forward . tls://192.0.2.1 {\n tls /a /b /c\n }\n}", problem: "tls takes no files"},
		{name: "upstreams from a file", key: "a.server", text: "a.org {\n forward . /etc/passwd\n}", problem: "not an IP address"},
		{name: "an upstream by name", key: "a.server", text: "a.org {\n forward . dns.example.org\n}", problem: "not an IP address"},
		{name: "an upstream of another sort", key: "a.server", text: "a.org {\n forward . grpc://192.0.2.1\n}", problem: "is no upstream"},
		{name: "the cluster's own DNS", key: "a.override", text: "forward example.org 10.43.0.10", problem: "round in a circle"},
		{name: "nothing to forward to", key: "a.override", text: "forward .", problem: "want a zone and upstreams"},
		{name: "options of forward", key: "a.server", text: "a.org {\n forward . 192.0.2.1 {\n except b.a.org c.a.org\n health_check 5s no_rec domain a.org\n force_tcp\n tls\n max_fails 3\n }\n}",
			want: "a.org {\n    prometheus\n    forward . 192.0.2.1 {\n    except b.a.org c.a.org\n    health_check 5s no_rec domain a.org\n    force_tcp\n    tls\n    max_fails 3\n    }\n}\n"},
		{name: "certificates behind another option", key: "a.override", text: "forward corp tls://192.0.2.53 {\n max_fails 3 tls /etc/hostname /etc/hosts\n}", problem: "max_fails: want 1 words"},
		{name: "a resolver behind another option", key: "a.override", text: "forward corp 192.0.2.53 {\n max_fails 3 resolver 10.43.0.10\n}", problem: "max_fails: want 1 words"},
		{name: "a resolver", key: "a.override", text: "forward corp 192.0.2.53 {\n resolver 192.0.2.1\n}", problem: "resolver is for upstreams by name"},
		{name: "an unknown option", key: "a.override", text: "forward corp 192.0.2.53 {\n max_fail 3\n}", problem: `did you mean "max_fails"?`},
		{name: "upstreams from a file behind a brace", key: "a.override", text: "forward corp 192.0.2.53 {\n max_fails 3\n} forward other /etc/hosts\n", problem: "line of its own"},
		{name: "the cluster's own DNS behind a brace", key: "a.override", text: "forward corp 192.0.2.53 {\n max_fails 3\n} forward other 10.43.0.10\n", problem: "line of its own"},
		{name: "upstreams from a file in a block below", key: "a.override", text: "forward corp 192.0.2.53\n{ other /etc/hosts\n}\n", problem: "at the end of its line"},
		{name: "upstreams from a file in a block in a block", key: "a.override", text: "forward corp 192.0.2.53 {\n except a {\n }\n}\n", problem: "one at most"},
		{name: "a brace that an option takes for a word", key: "a.override", text: "forward corp 192.0.2.53 {\n except a }\nforward other 192.0.2.1", problem: "line of its own"},
		{name: "an option behind the brace", key: "a.override", text: "forward corp 192.0.2.53 { tls /etc/hostname\n}", problem: "at the end of its line"},
		{name: "hosts from a file behind a brace", key: "a.override", text: "hosts {\n 192.0.2.1 a\n} hosts /etc/shadow", problem: "line of its own"},
		{name: "a large cache behind a brace", key: "a.override", text: "cache {\n keepttl\n} cache {\n success 100000000\n}", problem: "line of its own"},
		{name: "a large cache", key: "a.override", text: "cache {\n success 100000000\n}", problem: "65536 at most"},
		{name: "a cache of no number", key: "a.override", text: "cache {\n denial many\n}", problem: "want a number"},
		{name: "twice", key: "a.override", text: "log\nlog", problem: "line 2: log: it is there twice"},
		{name: "another port", key: "a.server", text: "example.org:5353 {\n whoami\n}", problem: "only port 53"},
		{name: "DNS over TLS", key: "a.server", text: "tls://example.org {\n whoami\n}", problem: "only plain DNS"},
		{name: "no zone", key: "a.server", text: "exam!ple {\n whoami\n}", problem: "no zone"},
		{name: "no text", key: "a.override", text: "log\x00", problem: "no text"},
		{name: "too large", key: "a.override", text: strings.Repeat("#", maxCustomBytes+1), problem: "more than"},
		{name: "too many words", key: "a.override", text: "log " + strings.Repeat("a ", maxCustomTokens), problem: "words"},
		{name: "too many blocks", key: "a.server", text: strings.Repeat("a {\n whoami\n}\n", maxCustomBlocks+1), problem: "server blocks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseCustom(map[string]string{c.key: c.text}, rules)
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), c.problem) {
					t.Errorf("error %v, want %q", err, c.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if text := got.override() + got.servers(); text != c.want {
				t.Errorf("got\n%swant\n%s", text, c.want)
			}
		})
	}
}

// FuzzParseCustom: whatever the ConfigMap holds, what comes out says no more than what was
// checked, and what is read again is the same.
func FuzzParseCustom(f *testing.F) {
	f.Add("log\nforward example.org 192.0.2.1 {\n policy random\n}", true)
	f.Add("example.org:53 {\n hosts {\n 192.0.2.1 a\n }\n template IN A {\n answer \"{{ .Name }}\"\n }\n}", false)
	f.Add("a {\n}\n(b) {\n import c\n}", false)
	f.Add("rewrite name \"a\\\"b\\\\\" c # d", true)
	f.Add("forward corp tls://192.0.2.53 {\n max_fails 3 tls /etc/hostname /etc/hosts\n}", true)
	f.Add("forward corp 192.0.2.53 {\n max_fails 3\n} forward other /etc/hosts\n", true)
	f.Add("forward corp 192.0.2.53\n{ other 10.43.0.10\n}\n", true)
	f.Add("hosts {\n 192.0.2.1 a\n} hosts /etc/shadow", true)
	f.Fuzz(func(t *testing.T, text string, override bool) {
		key := "a" + serverSuffix
		if override {
			key = "a" + overrideSuffix
		}
		c, err := parseCustom(map[string]string{key: text}, customRules{})
		if err != nil || c == nil {
			return
		}
		again, err := parseBlocks("again", c.overrideText, true)
		if err != nil || len(again) > 1 {
			t.Fatalf("the override %q became %q: %v", text, c.overrideText, err)
		}
		servers, err := parseBlocks("again", c.serverText, false)
		if err != nil {
			t.Fatalf("the servers %q became %q: %v", text, c.serverText, err)
		}
		for _, block := range append(again, servers...) {
			for name, tokens := range block.Tokens {
				readAsCoreDNS(t, name, tokens)
				ok := name == "prometheus"
				for _, d := range customDirectives {
					ok = ok || d == name
				}
				if !ok {
					t.Fatalf("%q slipped through from %q", name, text)
				}
			}
		}
	})
}

// readAsCoreDNS walks through the uses of a directive in the way that CoreDNS' plugins do: each
// begins with the directive's name, and forward asks addresses alone.
func readAsCoreDNS(t *testing.T, name string, tokens []caddyfile.Token) {
	t.Helper()
	d := caddyfile.NewDispenserTokens("again", tokens)
	for d.Next() {
		if d.Val() != name {
			t.Fatalf("%s goes on with %q: %v", name, d.Val(), tokens)
		}
		for n, to := range d.RemainingArgs() {
			if name == "forward" && n > 0 && strings.HasPrefix(to, "/") {
				t.Fatalf("forward reads %q: %v", to, tokens)
			}
			if name == "hosts" && to != "/dev/null" {
				t.Fatalf("hosts reads %q: %v", to, tokens)
			}
		}
		for d.NextBlock() {
			option := d.Val()
			count, known := forwardOptions[option]
			switch {
			case name != "forward" || count == manyArguments:
				d.RemainingArgs()
			case !known:
				t.Fatalf("forward with %s slipped through: %v", option, tokens)
			default:
				for range count {
					d.NextArg()
				}
			}
		}
	}
}

func TestCustom(t *testing.T) {
	needNetwork(t)
	api := newTestAPI(t)
	fill(api)
	outside := startUpstream(t, upstreamA, nil)
	startUpstream(t, upstreamB, func(w dns.ResponseWriter, r *dns.Msg) {
		reply := new(dns.Msg).SetReply(r)
		reply.Answer = []dns.RR{rr(r.Question[0].Name + " 300 IN A 203.0.113.99")}
		_ = w.WriteMsg(reply)
	})
	f := start(t, api, `{}`, []string{upstreamA})
	f.reports.wait(t, "ready")
	wantAnswer(t, "host.corp.", dns.TypeA, "NXDOMAIN")

	good := map[string]string{
		"corp.server":    "corp:53 {\n  errors\n  cache 30\n  forward . " + upstreamB + "\n}",
		"alias.override": "rewrite name alias.example.net web.default.svc.cluster.local",
		"extra.override": "hosts {\n  203.0.113.55 printer.office\n  fallthrough\n}",
	}
	inForce := func(t *testing.T) {
		t.Helper()
		wantAnswer(t, "host.corp.", dns.TypeA, "NOERROR", "203.0.113.99")
		wantAnswer(t, "alias.example.net.", dns.TypeA, "NOERROR", "10.43.1.2")
		wantAnswer(t, "printer.office.", dns.TypeA, "NOERROR", "203.0.113.55")
		wantAnswer(t, "web.default.svc.cluster.local.", dns.TypeA, "NOERROR", "10.43.1.2")
		wantAnswer(t, "www.example.org.", dns.TypeA, "NOERROR", "203.0.113.7")
	}
	api.put("configmaps", customMap(good))
	inForce(t)

	// waitEvent waits for an Event after the first skip ones.
	waitEvent := func(t *testing.T, reason, words string, skip int) {
		t.Helper()
		deadline := time.After(patience)
		for {
			api.mu.Lock()
			changed := api.changed
			api.mu.Unlock()
			for n, message := range api.eventsOf(reason) {
				if n >= skip && strings.Contains(message, words) {
					return
				}
			}
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("no Event %s %q: %q", reason, words, api.eventsOf(reason))
			}
		}
	}
	for _, bad := range []struct{ name, key, text, event string }{
		{"refused by k3m", "corp.server", "corp {\n bind 0.0.0.0\n}", "bind is not allowed here"},
		{"refused by CoreDNS", "corp.server", "corp {\n cache nonsense nonsense {\n wrong\n }\n forward . 192.0.2.1\n}", "wrong"},
		{"a zone twice", "corp.server", ".:53 {\n whoami\n}", "already defined"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			api.put("configmaps", customMap(map[string]string{bad.key: bad.text}))
			waitEvent(t, "Refused", bad.event, 0)
			inForce(t)
			f.reports.wait(t, "ready")
		})
	}
	f.stop()
	refusedBefore := len(api.eventsOf("Refused"))
	f = start(t, api, `{}`, []string{upstreamA}, withState(f.stateDir))
	t.Run("across a restart with a broken one in the API", func(t *testing.T) {
		f.reports.wait(t, "ready")
		waitEvent(t, "Refused", "", refusedBefore)
		inForce(t)
	})
	t.Run("good again", func(t *testing.T) {
		delete(good, "extra.override")
		good["forward.override"] = "forward . " + upstreamB // in place of the node's resolvers
		api.put("configmaps", customMap(good))
		waitEvent(t, "Taken", "in force", 0)
		wantAnswer(t, "other.example.org.", dns.TypeA, "NOERROR", "203.0.113.99")
		wantAnswer(t, "alias.example.net.", dns.TypeA, "NOERROR", "10.43.1.2")
		if outside.asked("other.example.org.") > 0 {
			t.Error("the node's resolvers were asked, too")
		}
	})
	t.Run("gone", func(t *testing.T) {
		api.remove("configmaps", customNamespace+"/"+customName)
		wantAnswer(t, "host.corp.", dns.TypeA, "NXDOMAIN")
		wantAnswer(t, "new.example.org.", dns.TypeA, "NOERROR", "203.0.113.7")
		f.stop() // what was kept is written by now
		if _, err := os.Stat(filepath.Join(f.stateDir, "coredns-custom.json")); !os.IsNotExist(err) {
			t.Errorf("it is still kept: %v", err)
		}
	})
}

// A change of the configuration loses no query.
func TestChangeLosesNothing(t *testing.T) {
	needNetwork(t)
	api := newTestAPI(t)
	fill(api)
	startUpstream(t, upstreamA, nil)
	f := start(t, api, `{}`, []string{upstreamA})
	f.reports.wait(t, "ready")
	stop, ended := make(chan struct{}), make(chan int)
	go func() {
		asked := 0
		for ; ; asked++ {
			select {
			case <-stop:
				ended <- asked
				return
			default:
			}
			reply, err := ask(t, gateway4, "web.default.svc.cluster.local.", dns.TypeA)
			if err != nil || len(reply.Answer) != 1 {
				t.Errorf("query %d: %v %v", asked, reply, err)
			}
		}
	}()
	for n := range 10 {
		host := string(rune('a'+n)) + ".office."
		api.put("configmaps", customMap(map[string]string{"h.override": "hosts {\n 192.0.2.5 " + host + "\n fallthrough\n}"}))
		wantAnswer(t, host, dns.TypeA, "NOERROR", "192.0.2.5")
	}
	close(stop)
	if asked := <-ended; asked < 10 {
		t.Errorf("only %d queries were asked", asked)
	}
}
