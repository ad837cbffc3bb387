package render_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/conf"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/translate"
)

// inServer are all directives that a server may hold, whatever its Ingresses say.
var inServer = strings.Fields(`listen server_name ssl_certificate ssl_certificate_key ssl_ciphers ssl_prefer_server_ciphers add_header return if
	location set rewrite internal allow deny satisfy auth_basic auth_basic_user_file auth_request auth_request_set error_page limit_req limit_conn
	limit_rate limit_rate_after client_max_body_size client_body_buffer_size access_log proxy_pass grpc_pass proxy_method
	proxy_pass_request_body proxy_ssl_server_name proxy_ssl_name grpc_ssl_server_name grpc_ssl_name proxy_set_header grpc_set_header proxy_connect_timeout proxy_send_timeout proxy_read_timeout
	grpc_connect_timeout grpc_send_timeout grpc_read_timeout proxy_next_upstream proxy_next_upstream_tries proxy_next_upstream_timeout
	grpc_next_upstream grpc_next_upstream_tries grpc_next_upstream_timeout proxy_buffering proxy_request_buffering proxy_buffer_size
	proxy_buffers proxy_busy_buffers_size proxy_max_temp_file_size grpc_buffer_size proxy_http_version proxy_cookie_domain proxy_cookie_path
	proxy_redirect proxy_hide_header proxy_intercept_errors grpc_intercept_errors`)

// Whatever an Ingress says, its server holds known directives alone, reads no file but those made
// for it, and hands requests to nobody but backends.
func FuzzIngress(f *testing.F) {
	names := annotations.Names()
	for i := range names {
		for j, value := range values {
			if (i+j)%9 == 0 {
				f.Add(uint8(i), value, "a.example", "/x", uint8(j))
			}
		}
	}
	f.Add(uint8(0), "true", "a.example\"; return 200;", "/x\"; return 200;", uint8(1))
	f.Fuzz(func(t *testing.T, which uint8, value, host, path string, kind uint8) {
		s := newSite(t)
		s.http, s.https = netip.MustParseAddrPort("127.0.0.1:8081"), netip.MustParseAddrPort("127.0.0.1:8444")
		s.services["web"] = &corev1.Service{}
		s.service("web", netip.MustParseAddrPort("10.0.0.1:80"))
		s.secrets["users"] = &corev1.Secret{Data: map[string][]byte{"auth": []byte(value), "x" + value: []byte(value)}}
		given := said{"auth-type": "basic", "auth-secret": "users", "auth-url": "http://a.example/", "enable-cors": "true",
			"default-backend": "web", "custom-http-errors": "404", "rewrite-target": "/$1", names[int(which)%len(names)]: value}
		ing := s.ingress("x", given)
		kinds := []networkingv1.PathType{networkingv1.PathTypeExact, networkingv1.PathTypePrefix, networkingv1.PathTypeImplementationSpecific}
		ing.Spec.Rules = []networkingv1.IngressRule{{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: path, PathType: &kinds[int(kind)%3],
				Backend: *backendRef("web")}}}}}}
		set := settings.Default()
		out := translate.Translate(s.input(set))
		rendered, err := render.Render(out.Config, set, s.env2(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range rendered.Files {
			if file.Path != render.Conf {
				continue
			}
			block, err := conf.Parse(string(file.Data))
			if err != nil {
				t.Fatalf("%v\n%s", err, file.Data)
			}
			checkServers(t, block)
		}
	})
}

func checkServers(t *testing.T, block []conf.Directive) {
	for _, d := range block {
		switch d.Words[0] {
		case "http":
			checkServers(t, d.Block)
		case "server":
			checkServer(t, d.Block)
		}
	}
}

func checkServer(t *testing.T, block []conf.Directive) {
	for _, d := range block {
		switch name := d.Words[0]; {
		case name == "stub_status":
		case !slices.Contains(inServer, name):
			t.Errorf("a server holds %v", d.Words)
		case strings.HasPrefix(name, "ssl_certificate") || name == "auth_basic_user_file":
			if strings.Contains(d.Words[1], "..") || !strings.HasPrefix(d.Words[1], "/run/k3m/") {
				t.Errorf("%v", d.Words)
			}
		case name == "proxy_pass" || name == "grpc_pass":
			target := d.Words[1]
			_, rest, _ := strings.Cut(target, "://")
			if target != "$k3m_auth_url" && rest != "web.default.80" && !strings.HasPrefix(rest, "web.default.80.") {
				t.Errorf("%v", d.Words)
			}
		}
		checkServer(t, d.Block)
	}
}
