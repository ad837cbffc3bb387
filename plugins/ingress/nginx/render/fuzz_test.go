package render_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/conf"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
)

// hostile are values that would be directives, if anything were written as it comes.
var hostile = []string{
	`x"; return 200 "owned`, `x'; deny all; #`, "x;\nreturn 200;", "x}\nserver { listen 1; }", `\`, `\"`, `"`, `x\`, "x\x00y", "x{", "x}",
	"$", "${", "$host", "${host}", "${k3m_dollar}", "$1", "$k3m_scheme", "# comment", "a b", " ", "~", "~*x", "default", "include", "hostnames",
	"volatile", "../../etc/passwd", "unix:/x", "@named", "\xff\xfe", "x\r\nSet-Cookie: y", "*", ";", "{}", "x$", `$"`, `\$`, "`", "é", "x\tz",
}

// hostileModel fills every free text of a model with one string, and every name with another: the
// renderer writes free text whatever it is, and leaves out names that are none.
func hostileModel(text, name string) (*model.Config, *settings.Settings) {
	no, zero, second := false, 0, time.Second
	size := model.Size(10)
	cookie := &model.Cookie{Name: text, Path: text, Domain: text, SameSite: text, MaxAge: time.Minute}
	limit := &model.Limit{Name: text, PerSecond: 1, Except: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	connections := &model.Limit{Name: text + "c"}
	users := &model.UserFile{ID: text, Data: []byte(text)}
	pair := &model.KeyPair{ID: text, Cert: []byte(text), Key: []byte(text)}
	endpoints := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80")}
	owner := types.NamespacedName{Namespace: text, Name: text}
	policy := &model.Policy{Protocol: model.HTTP, Rewrite: text, UpstreamHost: text, ForwardedPrefix: text, ConnectionHeader: text,
		Deny: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, SatisfyAny: true, BasicAuth: &model.BasicAuth{Realm: text, Users: users},
		Auth:     &model.ExternalAuth{URL: text, Method: text, SignIn: text, RedirectParam: "rd", ResponseHeaders: []string{name}},
		CORS:     &model.CORS{Origins: []string{"o" + text}, Methods: text, Headers: text, ExposeHeaders: text, Credentials: true},
		Requests: []model.LimitUse{{Limit: limit, Burst: 5}}, Connections: []model.LimitUse{{Limit: connections, Count: 1}},
		BodySize: &size, BodyBuffer: 10, ConnectTimeout: second, Buffering: &no, BufferSize: 4096, HTTPVersion: text,
		NextUpstream: []string{text}, NextTries: &zero, CookieDomain: &model.Replace{From: text, To: text},
		CookiePath: &model.Replace{From: text, To: text}, ProxyRedirect: &model.Replace{From: text, To: text},
		Errors: []int{404}, ErrorBackend: model.Backend{Upstream: text}}
	redirect := &model.Policy{Redirect: &model.Redirect{URL: text, Code: 301}}
	grpc := &model.Policy{Protocol: model.GRPC, UpstreamHost: text}
	location := func(path string, match model.Match, policy *model.Policy, ordered bool) *model.Location {
		return &model.Location{Path: path, Match: match, Ordered: ordered, Policy: policy, Owner: owner, Service: text, Port: text,
			Backend: model.Backend{Upstream: text}, RedirectHTTPS: match == model.Exact}
	}
	canary := location("/canary"+text, model.Exact, grpc, false)
	canary.Canary = &model.Canary{Backend: model.Backend{Upstream: "y" + text}, Header: name, Value: text, Cookie: text, Weight: 10, Total: 100}
	pattern := location("/pattern"+text, model.Exact, grpc, false)
	pattern.Canary = &model.Canary{Backend: model.Backend{Upstream: "y" + text}, Header: name, Pattern: text, Weight: 10, Total: 100}
	external := location("/external"+text, model.Exact, grpc, false)
	external.Backend = model.Backend{External: name + ".example:80"}
	server := &model.Server{Hosts: []string{name + ".example", "*." + name + ".example"}, Certificate: pair, HTTPS: true, AppRoot: text,
		Ciphers: text, Owner: owner, Fallback: location("/", model.Prefix, grpc, false),
		Locations: []*model.Location{canary, pattern, external, location("/x"+text, model.Prefix, policy, false),
			location("/r"+text, model.Regex, policy, true), location("/o"+text, model.Prefix, redirect, true)}}
	set := settings.Default()
	set.LogFormat, set.SSLCiphers, set.SSLCurve, set.SkipLog, set.GzipTypes, set.Gzip = text, text, text, []string{text}, []string{text}, true
	set.SSLProtocols, set.NextUpstream, set.ErrorLevel, set.HideHeaders = []string{text}, []string{text}, text, []string{name}
	return &model.Config{
		Servers: []*model.Server{{}, server, {Hosts: []string{"www." + name + ".example"}, RedirectTo: text}},
		Upstreams: []*model.Upstream{{Name: text, Endpoints: endpoints, Sticky: cookie},
			{Name: "y" + text, Endpoints: endpoints, HashBy: text}},
		Certificate: pair, Limits: []*model.Limit{limit, connections}}, set
}

// skeleton is a configuration without its values: names, numbers of words, blocks.
func skeleton(block []conf.Directive, depth int, into []string) []string {
	for _, d := range block {
		name := d.Words[0]
		if depth == 2 && strings.HasPrefix(name, "~") {
			// A key of a map.
			name = "~"
		}
		into = append(into, fmt.Sprintf("%s%s/%d", strings.Repeat(" ", depth), name, len(d.Words)))
		into = skeleton(d.Block, depth+1, into)
	}
	return into
}

func renderSkeleton(t *testing.T, text, name string) []string {
	t.Helper()
	s := newSite(t)
	s.http, s.https = netip.MustParseAddrPort("127.0.0.1:8081"), netip.MustParseAddrPort("127.0.0.1:8444")
	cfg, set := hostileModel(text, name)
	out, err := render.Render(cfg, set, s.env2(t))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, file := range out.Files {
		if strings.Contains(file.Path, "..") || strings.HasPrefix(file.Path, "/") || strings.Count(file.Path, "/") > 1 {
			t.Fatalf("%q makes a file %q", text, file.Path)
		}
		if file.Path != render.Conf {
			continue
		}
		block, err := conf.Parse(string(file.Data))
		if err != nil {
			t.Fatalf("%q makes a configuration that can't be read: %v\n%s", text, err, file.Data)
		}
		lines = skeleton(block, 0, nil)
	}
	// Maps are sorted by names that are made of what they hold.
	slices.Sort(lines)
	return lines
}

// No text makes a directive, takes one away, or adds a word to one.
func FuzzRender(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// A text that is empty, or makes no path of its own, means another model.
		if strings.Trim(text, " ") == "" || len(text) > 1000 {
			return
		}
		want := renderSkeleton(t, "plain", "name")
		if got := renderSkeleton(t, text, "name"); !slices.Equal(got, want) {
			t.Errorf("%q changes the configuration's skeleton:\n%s", text, difference(got, want))
		}
		// As a name it is left out, or written: never more than a plain one makes.
		known := map[string]bool{}
		for _, line := range want {
			known[strings.TrimSpace(strings.Split(line, "/")[0])] = true
		}
		for _, line := range renderSkeleton(t, "plain", text) {
			if !known[strings.TrimSpace(strings.Split(line, "/")[0])] {
				t.Errorf("the name %q makes %s", text, line)
			}
		}
	})
}

func difference(got, want []string) string {
	var b strings.Builder
	count := map[string]int{}
	for _, line := range got {
		count[line]++
	}
	for _, line := range want {
		count[line]--
	}
	for line, n := range count {
		if n != 0 {
			fmt.Fprintf(&b, "%+d %s\n", n, line)
		}
	}
	return b.String()
}
