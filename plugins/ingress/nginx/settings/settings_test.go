package settings_test

import (
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
)

// A later ConfigMap wins key by key; what none says is the default.
func TestParse(t *testing.T) {
	set, problems := settings.Parse(false, map[string]string{"proxy-body-size": "8m", "proxy-read-timeout": "2m", "worker-processes": "4"},
		map[string]string{"proxy-body-size": "16m", "use-gzip": "true", "worker-processes": "auto", "large-client-header-buffers": "8 16k"})
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	if set.BodySize != 16<<20 || set.ReadTimeout != 2*time.Minute || !set.Gzip || set.Workers != 0 || set.LargeHeaders != 8 ||
		set.LargeHeaderSize != 16<<10 || set.SendTimeout != time.Minute {
		t.Errorf("%+v", set)
	}
}

// A wrong value leaves the default, and says so.
func TestProblems(t *testing.T) {
	for _, c := range []struct{ key, value, says string }{
		{"proxy-body-size", "big", `"big" is not a size`},
		{"proxy-body-sise", "1m", `did you mean "proxy-body-size"?`},
		{"no-such-thing-at-all", "1", "the component's README"},
		{"enable-brotli", "true", "not supported"},
		{"server-name-hash-max-size", "1024", "computed"},
		{"http-snippet", "deny all;", "snippets are off"},
		{"log-format-upstream", `$no_such_variable`, "not one of nginx's"},
		{"log-format-upstream", "a\nb", "can't be printed"},
		{"ssl-protocols", "TLSv1.4", "one of TLSv1"},
		{"ssl-ciphers", "ALL:!HIGH", "no cipher that OpenSSL surely knows"},
		{"ssl-ciphers", "AES128-SHA:!SHA", "no strong cipher"},
		{"ssl-ecdh-curve", "P-257", "none of"},
		{"whitelist-source-range", "10.0.0.0/8,x", "neither an address nor a CIDR"},
		{"custom-http-errors", "200", "outside 400 to 599"},
		{"http-redirect-code", "200", "not one of 301"},
		{"large-client-header-buffers", "4", "such as 4 8k"},
	} {
		set, problems := settings.Parse(false, map[string]string{c.key: c.value})
		if len(problems) != 1 || problems[0].Key != c.key || !strings.Contains(problems[0].Message, c.says) {
			t.Errorf("%s: %s: %v, want … %s …", c.key, c.value, problems, c.says)
		}
		if set.BodySize != settings.Default().BodySize || set.HTTPSnippet != "" || set.LogFormat != settings.DefaultLogFormat {
			t.Errorf("%s: %s changes the settings", c.key, c.value)
		}
	}
}

// Snippets must be whole even where they are allowed.
func TestSnippets(t *testing.T) {
	set, problems := settings.Parse(true, map[string]string{"http-snippet": "map $host $x { default 1; }", "server-snippet": "} server {"})
	if set.HTTPSnippet == "" || set.ServerSnippet != "" || len(problems) != 1 || problems[0].Key != "server-snippet" {
		t.Errorf("%q, %q, %v", set.HTTPSnippet, set.ServerSnippet, problems)
	}
}
