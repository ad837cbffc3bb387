package nginx

import (
	"encoding/json"
	"testing"

	"github.com/k3m-io/k3m/sdk/plugintest"
)

// badConfigs are blocks that must be refused.
var badConfigs = []plugintest.BadConfig{
	{Name: "a key that is none", Config: json.RawMessage(`{"httpport": 80}`), Path: "httpport"},
	{Name: "port 0", Config: json.RawMessage(`{"httpPort": 0}`), Path: "httpPort"},
	{Name: "a port too high", Config: json.RawMessage(`{"httpsPort": 65536}`), Path: "httpsPort"},
	{Name: "one port twice", Config: json.RawMessage(`{"httpPort": 8080, "httpsPort": 8080}`), Path: "httpsPort"},
	{Name: "a relative path", Config: json.RawMessage(`{"executable": "sbin/nginx"}`), Path: "executable"},
	{Name: "a path that climbs", Config: json.RawMessage(`{"executable": "/usr/../nginx"}`), Path: "executable"},
	{Name: "a secret without a namespace", Config: json.RawMessage(`{"defaultCertificate": "tls"}`), Path: "defaultCertificate"},
	{Name: "a secret that can't be", Config: json.RawMessage(`{"defaultCertificate": "default/a;b"}`), Path: "defaultCertificate"},
	{Name: "a backend without a port", Config: json.RawMessage(`{"defaultBackend": "default/web"}`), Path: "defaultBackend"},
	{Name: "a backend with port 0", Config: json.RawMessage(`{"defaultBackend": "default/web:0"}`), Path: "defaultBackend"},
	{Name: "a ConfigMap that can't be", Config: json.RawMessage(`{"configMap": "a/b/c"}`), Path: "configMap"},
	{Name: "a setting that is no text", Config: json.RawMessage(`{"settings": {"proxy-body-size": 1}}`), Path: "settings.proxy-body-size"},
	{Name: "a setting that can't be", Config: json.RawMessage(`{"settings": {"proxy-body-size": "much; more"}}`), Path: "settings.proxy-body-size"},
	{Name: "a word for a boolean", Config: json.RawMessage(`{"allowSnippets": "yes"}`), Path: "allowSnippets"},
}

func TestGoodConfig(t *testing.T) {
	cfg, problems := parseConfig(json.RawMessage(`{"httpPort": 8080, "hostPorts": true, "executable": "/opt/nginx/sbin/nginx",
		"defaultBackend": "default/web:http", "settings": {"proxy-body-size": "2m"}, "accessLog": true}`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	backend, err := cfg.defaultBackend()
	if err != nil || backend.Name != "web" || backend.Port != "http" || cfg.HTTPPort != 8080 || !cfg.HostPorts || !cfg.AccessLog ||
		cfg.ConfigMap != defaultConfigMap {
		t.Errorf("%+v %+v %v", cfg, backend, err)
	}
}

func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		output, text string
		line         int
	}{
		"before the error log": {"nginx: [emerg] unknown directive \"x\" in /a/generation-1/nginx.conf:12\nnginx: configuration file /a/nginx.conf test failed\n",
			`unknown directive "x"`, 12},
		"after a warning": {"nginx: [warn] low in /a/nginx.conf:3\n2026/11/25 01:02:03 [emerg] 12#12: bad in /a/nginx.conf:40\n", "bad", 40},
		"without a line":  {"nginx: [emerg] bind() to 1.2.3.4:80 failed\n", "bind() to 1.2.3.4:80 failed", 0},
		"nothing known":   {"Segmentation fault\n", "Segmentation fault", 0},
	} {
		t.Run(name, func(t *testing.T) {
			if v := newVerdict(c.output); v.text != c.text || v.line != c.line {
				t.Errorf("%q at %d, want %q at %d", v.text, v.line, c.text, c.line)
			}
		})
	}
}

func TestStatusIsRead(t *testing.T) {
	got, err := parseStatus("Active connections: 3 \nserver accepts handled requests\n 10 9 25 \nReading: 1 Writing: 2 Waiting: 4 \n")
	if want := (status{active: 3, accepted: 10, handled: 9, requests: 25, reading: 1, writing: 2, waiting: 4}); err != nil || got != want {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "Active connections: x \nserver accepts handled requests\n 10 9 25 \nReading: 1 Writing: 2 Waiting: 4 \n", "<html>"} {
		if _, err := parseStatus(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
