package render_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/translate"
)

// values are what may stand in an annotation or a ConfigMap: right for some, wrong for most,
// or at the edge of what nginx takes.
var values = append([]string{
	"", "true", "false", "on", "off", "0", "1", "2", "3", "5", "10", "100", "301", "308", "404", "404,503", "499", "65535", "99999999", "-1",
	"1k", "8k", "1m", "1g", "0.5", "1s", "1ms", "60s", "1d", "any", "all", "cookie", "basic", "HTTP", "HTTPS", "GRPC", "GRPCS", "grpc",
	"error timeout", "error timeout http_502 non_idempotent", "off", "a.example", "*.example", "web", "default/web", "/", "/x", "/$1", "/$1/$2?a=$3",
	"/a b", "/(.*)", "https://a.example", "https://a.example/x?y=$request_uri", "https://$host/x?rd=$escaped_request_uri", "http://[2001:db8::1]:80/x",
	"$request_uri", "$binary_remote_addr", "$http_x_user", "10.0.0.0/8", "10.0.0.1, 2001:db8::/32", "::1", "X-One", "X-One, X-Two", "GET, POST", "*",
	"None", "Lax", "close", "Upgrade", "TLSv1.2", "TLSv1.3 TLSv1.2", "text/html text/plain", "application/json", "4 8k", "1 1m", "auto",
	"$remote_addr [$time_local] \"$request\" $status", "{\"a\": \"$status\"}", "always", "^v[0-9]+$", "(a|b)", "a{2}", "[", "(?=x)", "(?P<n>x)", `\d+`,
	"a.example b.example", "/a /b", "~/a /b", "https", "warn", "debug", "error", "X-Forwarded-For",
	"HIGH:!aNULL:!MD5:!RSA:!DHE", "ECDHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256:!DHE", "!ALL", "HIGH:!HIGH", "EECDH+AESGCM:EDH+AESGCM",
	"DEFAULT:@SECLEVEL=1:!SHA1", "ECDHE-ECDSA-CHACHA20-POLY1305:AES128-SHA:!SHA1:!kRSA", "HIGH:-EDH:-kRSA:-SHA", "EECDH", "ECDHE+CHACHA20",
	"X25519:P-256", "X448", "P-521:secp384r1:prime256v1", "P-257",
}, hostile...)

// Whatever stands in an annotation, nginx takes the configuration: what isn't right was left out
// before.
func TestNginxTakesEveryAnnotation(t *testing.T) {
	s := newSite(t)
	s.snippets = false
	s.backend("web")
	s.tlsSecret("pair", "a.example")
	s.secrets["web"] = &corev1.Secret{Data: map[string][]byte{"auth": []byte("a:b")}}
	// What an annotation needs to mean something.
	companions := said{"auth-type": "basic", "auth-secret": "web", "auth-url": "http://a.example/", "enable-cors": "true", "affinity": "cookie",
		"limit-rps": "1", "default-backend": "web", "custom-http-errors": "404"}
	for _, name := range annotations.Names() {
		for i, value := range values {
			host := fmt.Sprintf("%s-%d.example", name, i)
			for _, with := range []said{nil, companions} {
				given := maps.Clone(with)
				if given == nil {
					given = said{}
				}
				given[name] = value
				if refused(given, name) {
					continue
				}
				kind := "plain"
				if with != nil {
					kind = "with"
				}
				rules := []string{"^ " + kind + "." + host + "/ web", "~ " + kind + "." + host + "/x/(.*) web", "= " + kind + "." + host + "/y/ web"}
				if strings.HasPrefix(name, "canary") {
					given["canary"] = "true"
					s.ingress("main-"+kind+"-"+host, nil, rules...)
				}
				ing := s.ingress(kind+"-"+host, given, rules...)
				ing.Spec.TLS = []networkingv1.IngressTLS{{SecretName: "pair"}}
			}
		}
	}
	s.test(t)
}

// refused tells whether a value is refused, so that the Ingress is as if it weren't there.
func refused(given said, name string) bool {
	full := map[string]string{}
	for short, value := range given {
		full[annotations.Prefix+short] = value
	}
	_, problems := annotations.Parse(full, false)
	return slices.ContainsFunc(problems, func(p annotations.Problem) bool { return p.Name == name })
}

// So with the values of the ConfigMap: each that is taken, with one of every other key's.
func TestNginxTakesEverySetting(t *testing.T) {
	base := fmt.Sprint(*settings.Default())
	accepted := map[string][]string{}
	most := 0
	for _, key := range settings.Keys() {
		if strings.HasSuffix(key, "-snippet") {
			continue
		}
		for _, value := range values {
			set, problems := settings.Parse(false, map[string]string{key: value})
			if len(problems) == 0 && fmt.Sprint(*set) != base {
				accepted[key] = append(accepted[key], value)
			}
		}
		most = max(most, len(accepted[key]))
		if len(accepted[key]) == 0 {
			t.Errorf("no value of the test's is one for %s", key)
		}
	}
	for i := range most {
		s := newSite(t)
		for key, list := range accepted {
			s.config[key] = list[i%len(list)]
		}
		s.backend("web")
		s.ingress("web", said{"proxy-buffers-number": "2"}, "^ web.example/ web")
		if s.test(t); t.Failed() {
			t.Fatalf("of these values: %v", s.config)
		}
	}
}

// test renders the site and has nginx check it.
func (s *site) test(t *testing.T) translate.Output {
	t.Helper()
	out, set := s.translate()
	s.http, s.https = freePort(t), freePort(t)
	env := s.env()
	rendered, err := render.Render(out.Config, set, env)
	if err != nil {
		t.Fatal(err)
	}
	place(t, env, rendered)
	said, err := nginx(env, "-t").CombinedOutput()
	warned := strings.Contains(string(said), "[warn]") && !strings.Contains(string(said), "exceed open file resource limit")
	if err != nil || warned {
		owner := ""
		for line := range strings.Lines(string(said)) {
			_, number, found := strings.Cut(line, render.Conf+":")
			n := 0
			if _, err := fmt.Sscan(number, &n); found && err == nil {
				if ingress, ok := rendered.Owner(n); ok {
					owner = ingress.String()
				}
			}
		}
		t.Errorf("nginx -t: %v: %s\nof Ingress %s", err, said, owner)
	}
	return out
}
