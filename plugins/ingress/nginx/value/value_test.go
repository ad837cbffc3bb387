package value_test

import (
	"strings"
	"testing"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

func TestURL(t *testing.T) {
	for text, ok := range map[string]bool{
		"https://a.example": true, "http://a.example:8080/x?y=$request_uri": true, "https://$host/oauth2/auth": true,
		"$scheme://$host$request_uri": true, "http://[2001:db8::1]/": true, "https://${host}/": true,
		"/path": false, "//a.example": false, "ftp://a.example": false, "https://": false, "https://a.example/$uri": false,
		"https://a.example/ b": false, "https://a.example/\"": false, "https://a.example/;": true, "javascript:alert(1)": false, "": false,
		"https://a.example/$": false, "https://a.example/${": false, "https://a.example/\n": true, // trimmed
	} {
		if _, err := value.URL(text, false); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := value.URL("/path?x=$arg_y", true); err != nil {
		t.Error(err)
	}
}

func TestOutside(t *testing.T) {
	for host, ok := range map[string]bool{"a.example": true, "10.0.0.1": true, "oauth.auth.svc.cluster.local": true, "localhost": false,
		"LOCALHOST.": false, "x.localhost": false, "127.0.0.1": false, "127.1": false, "2130706433": false, "::1": false, "[::1]": false,
		"unix": false, "UNIX": false, "unix.example": true, "0.0.0.0": false, "169.254.169.254": false, "::ffff:127.0.0.1": false, "fe80::1": false} {
		if err := value.Outside(host); (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestRegexp(t *testing.T) {
	for text, groups := range map[string]int{"/x": 0, "/x(/|$)(.*)": 2, "/(?:a|b)/(c)": 1, "(?=x)": -1, "(?P<a>x)": -1, "(?<a>x)": -1, `(a)\1`: -1,
		"(": -1, "a**": -1, `\Qx`: -1, "x\n": -1, strings.Repeat("x", 600): -1, "(*UTF8)x": -1, "a++": -1} {
		got, err := value.Regexp(text)
		if groups < 0 && err == nil || groups >= 0 && (err != nil || got != groups) {
			t.Errorf("%q: %d groups, %v, want %d", text, got, err, groups)
		}
	}
}

func TestGrammars(t *testing.T) {
	read := map[string]func(string) error{
		"size":     func(s string) error { _, err := value.Size(s); return err },
		"duration": func(s string) error { _, err := value.Duration(s); return err },
		"prefixes": func(s string) error { _, err := value.Prefixes(s); return err },
		"host":     func(s string) error { _, err := value.Host(s); return err },
		"cookie":   func(s string) error { _, err := value.CookieName(s); return err },
		"headers":  func(s string) error { _, err := value.HeaderNames(s, false); return err },
		"codes":    func(s string) error { _, err := value.Codes(s, 400, 599); return err },
		"text":     func(s string) error { _, err := value.Text(s); return err },
	}
	for _, c := range []struct {
		kind, good, bad string
	}{
		{"size", "0 10 8k 8K 100m 5g", "-1 1.5m 8kb k 99999999999999 1t"},
		{"duration", "0 5 5s 100ms 2m 1h 1d", "-5 5x 1.5 999999999d soon"},
		{"prefixes", "10.0.0.0/8 10.1.2.3 2001:db8::/32,::1", "10.0.0.0/33 fe80::1%eth0 x , 10.0.0.1;"},
		{"host", "a.example *.a.example A.example", "*.*.x *x.example -a a..b a_b x; *"},
		{"cookie", "route my-route a.b", "a=b a;b $x \""},
		{"headers", "X-One X-One,X_Two", "X:One $http ,"},
		{"codes", "404 404,503", "399 600 x ,"},
	} {
		for _, text := range strings.Fields(c.good) {
			if err := read[c.kind](text); err != nil {
				t.Errorf("%s %q: %v", c.kind, text, err)
			}
		}
		for _, text := range append(strings.Fields(c.bad), "") {
			if err := read[c.kind](text); err == nil {
				t.Errorf("%s %q is taken", c.kind, text)
			}
		}
	}
	for _, text := range []string{"a\nb", "a\x00b", "a\x7fb", "\xff", strings.Repeat("x", 3000)} {
		if err := read["text"](text); err == nil {
			t.Errorf("text %q is taken", text)
		}
	}
}

// Whatever a template is, its pieces make it up, and its variables are known ones.
func FuzzTemplate(f *testing.F) {
	for _, text := range []string{"", "$", "$host", "${host}x", "$$host", "a$request_uri", "${", "$1", "$http_x", "$HOST"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var got strings.Builder
		value.Template(text, func(piece string, variable bool) {
			if variable && !value.AllowedVariable(piece) {
				t.Errorf("%q: the variable %q", text, piece)
			}
			if variable {
				got.WriteString("$")
			}
			got.WriteString(piece)
		})
		plain := strings.NewReplacer("{", "", "}", "")
		if plain.Replace(got.String()) != plain.Replace(text) {
			t.Errorf("%q becomes %q", text, got.String())
		}
	})
}
