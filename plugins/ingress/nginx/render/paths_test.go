package render_test

import "testing"

// Paths are compared as the Ingress API says: element by element, exact ones first, then the longest.
func TestPaths(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"root", "foo", "foo-exact", "foobar", "long", "text", "regex", "wild", "exact-host", "any"} {
		s.backend(name)
	}
	s.ingress("a", nil, "^ a.example/ root", "^ a.example/foo foo", "= a.example/foo foo-exact", "^ a.example/foo/long/ long",
		"= a.example/slash/ foo", "~ a.example/text text")
	s.ingress("b", nil, "^ b.example/foo foo", "= b.example/only foo")
	s.ingress("wild", nil, "^ *.wild.example/ wild", "^ x.wild.example/ exact-host")
	s.ingress("none", nil, "^ /any any")
	s.ingress("regex", map[string]string{"use-regex": "true"}, "~ r.example/v[0-9]+/.* regex", "~ r.example/ root")
	s.ingress("regex2", nil, "^ r.example/v1/fixed-and-long foo", "= r.example/v2/x foo-exact")
	s.start()
	for url, want := range map[string]string{
		"http://a.example/":                    "root",
		"http://a.example/other":               "root",
		"http://a.example/foo":                 "foo-exact",
		"http://a.example/foo/":                "foo",
		"http://a.example/foo/bar":             "foo",
		"http://a.example/foobar":              "root",
		"http://a.example/foo/long":            "long",
		"http://a.example/foo/long/er":         "long",
		"http://a.example/foo/longer":          "foo",
		"http://a.example/slash/":              "foo",
		"http://a.example/slash":               "root",
		"http://a.example/text":                "text",
		"http://a.example/textual":             "text",
		"http://a.example/f%6Fo/x":             "foo",
		"http://A.EXAMPLE/foo/x":               "foo",
		"http://a.example:8080/foo/x":          "foo",
		"http://b.example/foo":                 "foo",
		"http://b.example/foobar":              "404",
		"http://b.example/":                    "404",
		"http://b.example/only":                "foo",
		"http://b.example/only/x":              "404",
		"http://y.wild.example/":               "wild",
		"http://x.wild.example/":               "exact-host",
		"http://y.y.wild.example/":             "404",
		"http://wild.example/":                 "404",
		"http://unknown.example/any/x":         "any",
		"http://unknown.example/":              "404",
		"http://r.example/v1/x":                "regex",
		"http://r.example/V1/x":                "regex",
		"http://r.example/w1/x":                "root",
		"http://r.example/v1/fixed-and-long/x": "foo",
		"http://r.example/v1/fixed-and-longer": "regex",
		"http://r.example/v2/x":                "foo-exact",
	} {
		if got := s.get(url).from(); got != want {
			t.Errorf("%s: answered by %s, want %s", url, got, want)
		}
	}
}

func TestDefaultBackends(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"web", "own", "catch-all"} {
		s.backend(name)
	}
	s.service("empty")
	s.ingress("own", nil, "^ own.example/web web").Spec.DefaultBackend = backendRef("own")
	s.ingress("plain", nil, "^ plain.example/web web", "^ plain.example/empty empty", "^ plain.example/missing missing")
	s.ingress("all", nil).Spec.DefaultBackend = backendRef("catch-all")
	s.start()
	for url, want := range map[string]string{
		"http://own.example/web":         "web",
		"http://own.example/x":           "own",
		"http://plain.example/web":       "web",
		"http://plain.example/x":         "catch-all",
		"http://other.example/x":         "catch-all",
		"http://plain.example/empty":     "503",
		"http://plain.example/missing/x": "503",
	} {
		if got := s.get(url).from(); got != want {
			t.Errorf("%s: answered by %s, want %s", url, got, want)
		}
	}
}

// Without an Ingress nginx answers 404.
func TestNothing(t *testing.T) {
	s := newSite(t)
	s.start()
	for _, url := range []string{"http://x.example/", "https://x.example/"} {
		if got := s.get(url).from(); got != "404" {
			t.Errorf("%s: %s, want 404", url, got)
		}
	}
}
