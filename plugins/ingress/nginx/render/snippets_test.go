package render_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
)

// Where the operator allows them, snippets are served, as long as they end no block of others.
func TestSnippets(t *testing.T) {
	s := newSite(t)
	s.snippets = true
	s.config = map[string]string{"http-snippet": "map $host $k_host { default x; }", "location-snippet": "add_header X-Every $k_host;"}
	s.backend("web")
	s.ingress("location", said{"configuration-snippet": "add_header X-One 1;\nif ($arg_x) {\n  return 418;\n}\n"}, "^ location.example/ web")
	s.ingress("server", said{"server-snippet": "location = /hello { return 200 hello; }"}, "^ server.example/ web")
	s.ingress("escape", said{"configuration-snippet": "} location /evil { return 200 evil;"}, "^ escape.example/ web")
	s.start()
	if got := s.get("http://location.example/"); got.Header.Get("X-One") != "1" || got.Header.Get("X-Every") != "x" {
		t.Errorf("configuration-snippet: %v", got.Header)
	}
	if got := s.get("http://location.example/?x=1").StatusCode; got != 418 {
		t.Errorf("configuration-snippet: %d, want 418", got)
	}
	if got := s.get("http://server.example/hello").body; got != "hello" {
		t.Errorf("server-snippet: %q", got)
	}
	for _, path := range []string{"/", "/evil"} {
		if got := s.get("http://escape.example" + path).StatusCode; got != 503 {
			t.Errorf("a snippet that ends its block: %s: %d, want 503", path, got)
		}
	}
}

// The Ingress that nginx refuses is found by the line that nginx names.
func TestOwner(t *testing.T) {
	s := newSite(t)
	s.snippets = true
	s.backend("web")
	for i := range 20 {
		given := said{"enable-cors": "true", "affinity": "cookie", "limit-rps": "5"}
		switch {
		case i == 13:
			given["configuration-snippet"] = "# comment\nno_such_directive on;"
		case i%2 == 0:
			given["configuration-snippet"] = "# comment\n\nadd_header X-One 1;\n\n"
		}
		s.ingress(fmt.Sprintf("ing-%d", i), given, fmt.Sprintf("^ host-%d.example/ web", i), fmt.Sprintf("= host-%d.example/x web", i))
	}
	out, set := s.translate()
	s.http, s.https = freePort(t), freePort(t)
	env := s.env()
	rendered, err := render.Render(out.Config, set, env)
	if err != nil {
		t.Fatal(err)
	}
	place(t, env, rendered)
	told, err := nginx(env, "-t").CombinedOutput()
	if err == nil {
		t.Fatal("nginx takes a directive that doesn't exist")
	}
	_, rest, _ := strings.Cut(string(told), render.Conf+":")
	line := 0
	if _, err := fmt.Sscan(rest, &line); err != nil {
		t.Fatalf("%s: %v", told, err)
	}
	if owner, ok := rendered.Owner(line); !ok || owner.Name != "ing-13" {
		t.Errorf("line %d is of %s, want ing-13: %s", line, owner, told)
	}
}
