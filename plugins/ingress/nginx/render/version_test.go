package render_test

import (
	"strings"
	"testing"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
)

const modules = " --with-http_ssl_module --with-http_v2_module --with-http_realip_module --with-http_auth_request_module " +
	"--with-http_stub_status_module"

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"nginx version: nginx/1.22.1\nconfigure arguments:" + modules:                             "",
		"nginx version: nginx/1.28.0 (Ubuntu)\nconfigure arguments:" + modules:                    "",
		"nginx version: openresty/1.25.3.1\nconfigure arguments:" + modules:                       "",
		"nginx version: nginx/1.16.1\nconfigure arguments:" + modules:                             "too old",
		"nginx version: nginx/1.22.1\nconfigure arguments: --with-http_ssl_module":                "ngx_http_v2_module, ngx_http_realip_module",
		"nginx version: nginx/1.22.1\nconfigure arguments: --without-http_grpc_module" + modules:  "ngx_http_grpc_module",
		"nginx version: nginx/1.22.1\nconfigure arguments: --without-http_uwsgi_module" + modules: "",
		"Apache/2.4": "is it nginx?",
	} {
		_, err := render.ParseVersion(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// From 1.25.1 on HTTP/2 is a directive of its own.
func TestHTTP2OfNewerVersions(t *testing.T) {
	s := newSite(t)
	out, set := s.translate()
	env := s.env2(t)
	for version, directive := range map[string]bool{"1.22.1": false, "1.25.0": false, "1.25.1": true, "1.28.0": true} {
		var err error
		if env.Nginx, err = render.ParseVersion("nginx version: nginx/" + version + "\nconfigure arguments:" + modules); err != nil {
			t.Fatal(err)
		}
		rendered, err := render.Render(out.Config, set, env)
		if err != nil {
			t.Fatal(err)
		}
		conf := string(rendered.Files[0].Data)
		if strings.Contains(conf, "http2 on;") != directive || strings.Contains(conf, " ssl http2;") == directive {
			t.Errorf("%s: %s", version, conf)
		}
	}
}
