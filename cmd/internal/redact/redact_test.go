package redact

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

const planted = "hunter2-Zq8/+x y"

func TestText(t *testing.T) {
	r := New([]string{planted, "first-line-of-a-key-ABC\nsecond-line-of-a-key-DEF\n", "tiny"})
	quoted, err := json.Marshal("a\"" + planted)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ text, gone string }{
		"by value":               {"a log line with " + planted + " in it", planted},
		"in base64":              {"data: " + base64.StdEncoding.EncodeToString([]byte(planted)), base64.StdEncoding.EncodeToString([]byte(planted))},
		"echoed into base64":     {base64.StdEncoding.EncodeToString([]byte(planted + "\n")), base64.StdEncoding.EncodeToString([]byte(planted + "\n"))},
		"in a URL":               {"GET /?q=" + url.QueryEscape(planted), url.QueryEscape(planted)},
		"in JSON":                {string(quoted), "hunter2"},
		"a line of several":      {"it says second-line-of-a-key-DEF here", "second-line"},
		"a private key":          {"x\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\ny", "MHcCAQEE"},
		"half a private key":     {"-----BEGIN PRIVATE KEY-----\nMHcCAQEE", "MHcCAQEE"},
		"a kubeconfig":           {"client-key-data: LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0t", "LS0t"},
		"a web token":            {"sent eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln to it", "eyJ"},
		"a node's token":         {"joined with K10" + strings.Repeat("ab", 32) + "::node:f00f00", "f00f00"},
		"a bootstrap token":      {"kubeadm join abcdef.0123456789abcdef", "0123456789abcdef"},
		"a header":               {"Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"},
		"a bearer":               {`curl -H "bearer abcdefghijk"`, "abcdefghijk"},
		"user and password":      {"pull https://bob:swordfish@registry.example/v2", "swordfish"},
		"a user that is a token": {"pull https://swordfish@registry.example/v2", "swordfish"},
		"a flag":                 {"--db-password=swordfish", "swordfish"},
		"a flag and a word":      {"mysqld --password swordfish", "swordfish"},
		"a quoted value":         {`apiKey="sword fish"`, "fish"},
		"a JSON key":             {`{"clientSecret": "sword\"fish", "a": 1}`, "fish"},
		"JSON in JSON":           {`"{\"token\":\"swordfish\"}"`, "swordfish"},
		"a variable":             {"K3M_TOKEN=swordfish", "swordfish"},
		"YAML":                   {"secret_access_key: swordfish\n", "swordfish"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := r.Text(tc.text); strings.Contains(got, tc.gone) || !strings.Contains(got, Mark) {
				t.Errorf("%q became %q", tc.text, got)
			}
		})
	}
	for _, text := range []string{
		"2026-11-24T17:18:14.694Z INFO  core: node ready node=edge-1 after=1.87s",
		"cni0: <BROADCAST,MULTICAST,UP> mtu 1450 qdisc noqueue state UP",
		"-A KUBE-SERVICES -d 10.43.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y",
		"tiny things stay",
	} {
		if got := r.Text(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestYAML(t *testing.T) {
	const text = `# the old password was sesame-open
node-name: edge-1
token: swordfish-1 # really
spare: &shared swordfish-2
components:
  addon.mail:
    password: *shared
    servers: [{host: a, apiKey: swordfish-3}]
    credentials: {user: bob, nested: [swordfish-4]}
kube-apiserver-arg:
- oidc-client-secret=swordfish-5
- v=2
configs:
  registry.example:
    auth: {username: bob, password: swordfish-6}
`
	got, err := New(nil).YAML([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"swordfish", "sesame"} {
		if strings.Contains(string(got), gone) {
			t.Errorf("%s is still in\n%s", gone, got)
		}
	}
	for _, kept := range []string{"edge-1", "host: a", "v=2", "registry.example"} {
		if !strings.Contains(string(got), kept) {
			t.Errorf("%s is no longer in\n%s", kept, got)
		}
	}
	values, err := SecretsIn([]byte(text))
	if err != nil || !strings.Contains(strings.Join(values, " "), "swordfish-6") {
		t.Errorf("found %q, %v", values, err)
	}
	if _, err := New(nil).YAML([]byte("password: [swordfish")); err == nil {
		t.Error("a broken file went through")
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("token: x\nlist: [a, b=c]\n")
	f.Add("--password=a -----BEGIN PRIVATE KEY-----")
	r := New([]string{planted})
	f.Fuzz(func(t *testing.T, text string) {
		if got := r.Text(text + planted); strings.Contains(got, planted) {
			t.Errorf("%q", got)
		}
		_, _ = r.YAML([]byte(text))
		if got, err := r.YAML([]byte("x: y\ntoken: " + "swordfish\n" + text)); err == nil && strings.Contains(string(got), "swordfish") {
			if !strings.Contains(text, "swordfish") {
				t.Errorf("%q", got)
			}
		}
	})
}
