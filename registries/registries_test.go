package registries

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const example = `
mirrors:
  docker.io:
    endpoint: ["https://mirror.example.com:5000", "mirror2.example.com/v2/", "https://mirror.example.com:5000/"]
    rewrite:
      "^library/(.*)": "docker/$1"
      "^nothing$": ""
      ".*": "other/$0"
  registry.example.com:5000:
    endpoint: http://10.0.0.1:5000/v2/proxy
  "*":
    endpoint: https://all.example.com
  empty.example.com:
configs:
  mirror.example.com:5000:
    auth: {username: me, password: secret}
    tls: {ca_file: /ca.pem, cert_file: /cert.pem, key_file: /key.pem}
  docker.io:
    auth: {auth: bWU6c2VjcmV0}
  "*":
    auth: {identity_token: refresh}
    tls: {insecure_skip_verify: true}
`

func TestParse(t *testing.T) {
	r, err := Parse("registries.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range r.Mirrors[0].Endpoints {
		names = append(names, e.URL.String())
	}
	if want := []string{"https://mirror.example.com:5000", "https://mirror2.example.com"}; !reflect.DeepEqual(names, want) {
		t.Errorf("endpoints are %q, want %q", names, want)
	}
	for repository, want := range map[string]string{"library/nginx": "docker/nginx", "nothing": "nothing", "a/b": "other/a/b"} {
		docker, _ := r.Mirror("docker.io")
		if got := docker.Rewrite(repository); got != want {
			t.Errorf("%s becomes %q, want %q", repository, got, want)
		}
	}
	for registry, want := range map[string]string{
		"registry.example.com:5000": "http://10.0.0.1:5000/v2/proxy", // its path stands in place of /v2
		"quay.io":                   "https://all.example.com",
		"empty.example.com":         "",
	} {
		m, ok := r.Mirror(registry)
		got := ""
		if len(m.Endpoints) > 0 {
			got = m.Endpoints[0].URL.String()
		}
		if !ok || got != want {
			t.Errorf("%s is mirrored by %q, want %q", registry, got, want)
		}
	}
	for host, want := range map[string]Auth{
		"mirror.example.com:5000": {Username: "me", Password: "secret"},
		"registry-1.docker.io":    {Username: "me", Password: "secret"},
		"docker.io":               {Username: "me", Password: "secret"},
		"mirror.example.com":      {IdentityToken: "refresh"}, // another port is another host
	} {
		if got := r.Host(host).Auth; got != want {
			t.Errorf("%s is shown %+v, want %+v", host, got, want)
		}
	}
	if !r.Host("quay.io").TLS.InsecureSkipVerify || r.Host("docker.io").TLS.InsecureSkipVerify {
		t.Error("the wildcard holds where nothing else is said, and nowhere else")
	}
	want := []string{"docker.io", "registry.example.com:5000", "*", "empty.example.com", "mirror.example.com:5000"}
	if got := r.Names(); !reflect.DeepEqual(got, want) {
		t.Errorf("names are %q, want %q", got, want)
	}
}

func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":             {"mirors: {}", `r.yaml:1:1: unknown key "mirors", did you mean "mirrors"?; allowed: configs, mirrors`},
		"unknown key of a mirror": {"mirrors:\n  docker.io:\n    endpoints: [x]", `r.yaml:3:5: unknown key "endpoints", did you mean "endpoint"?; a mirror takes: endpoint, rewrite`},
		"unknown key of auth":     {"configs:\n  a.b:\n    auth: {user: x}", `r.yaml:3:12: unknown key "user"`},
		"twice":                   {"mirrors:\n  a.b: {}\n  a.b: {}", `r.yaml:3:3: key "a.b" stands at r.yaml:2:3 already`},
		"a list":                  {"- a", "r.yaml:1:1: allowed: want keys and values"},
		"a list of mirrors":       {"mirrors: [a]", "r.yaml:1:10: mirrors: want keys and values"},
		"not YAML":                {"mirrors: [", "r.yaml: line 1"},
		"two documents":           {"mirrors: {}\n---\nmirrors: {}", "more than one YAML document"},
		"an anchor":               {"mirrors:\n  a.b: &x {endpoint: c.d}\n  e.f: *x", "r.yaml:3:3: anchors, aliases"},
		"a registry as URL":       {"mirrors: {'https://a.b': {}}", `r.yaml:1:11: mirrors: "https://a.b" has a scheme; write the host alone`},
		"no registry":             {"configs: {'a b': {}}", `r.yaml:1:11: configs: "a b" is not a registry`},
		"no URL":                  {"mirrors: {a.b: {endpoint: 'ftp://x'}}", `endpoint "ftp://x": its scheme is "ftp"; want one such as https://mirror.example.com:5000`},
		"a password in a URL":     {"mirrors: {a.b: {endpoint: 'https://me:secret@c.d'}}", `endpoint "https://…@c.d": user and password belong below configs, auth`},
		"a number as endpoint":    {"mirrors: {a.b: {endpoint: [{}]}}", "r.yaml:1:28: endpoint takes one text"},
		"no pattern":              {"mirrors:\n  a.b:\n    rewrite:\n      '(': x", `r.yaml:4:7: rewrite: "(" is no regular expression`},
		"half of a login":         {"configs: {a.b: {auth: {username: x}}}", "give username and password, both of them"},
		"two logins":              {"configs: {a.b: {auth: {username: x, password: y, identity_token: z}}}", "one of them"},
		"no base64":               {"configs: {a.b: {auth: {auth: '!'}}}", "auth is not the base64 of username:password"},
		"no boolean":              {"configs: {a.b: {tls: {insecure_skip_verify: yes}}}", "insecure_skip_verify is true or false"},
		"a relative path":         {"configs: {a.b: {tls: {ca_file: ca.pem}}}", `r.yaml:1:32: ca_file: "ca.pem" is not an absolute path`},
		"a key alone":             {"configs: {a.b: {tls: {key_file: /k}}}", "key_file without cert_file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("r.yaml", []byte(c.text))
			var mistake *Error
			if !errors.As(err, &mistake) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registries.yaml")
	if _, err := Read(file); !IsNotExist(err) {
		t.Errorf("the error of a file that is not there is %v", err)
	}
	missing := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte("configs:\n  a.b:\n    tls:\n      ca_file: "+missing+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err == nil || !strings.HasPrefix(err.Error(), file+":4:16: ca_file: ") {
		t.Errorf("the error of a certificate that is not there is %v", err)
	}
	if err := os.WriteFile(missing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(file, maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("the error of a large file is %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("mirrors: {a.b: {rewrite: {'^(.*)$': 'x/$1'}}}"))
	f.Add([]byte("configs: {a.b: {auth: {auth: bWU6c2VjcmV0}}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse("r.yaml", text)
		if err != nil {
			var mistake *Error
			if !errors.As(err, &mistake) || !strings.HasPrefix(err.Error(), "r.yaml") || strings.Contains(err.Error(), "\n") {
				t.Errorf("the mistake is told as %q", err)
			}
			return
		}
		for _, name := range r.Names() {
			m, _ := r.Mirror(name)
			for _, e := range m.Endpoints {
				if e.URL.Host == "" || e.URL.Scheme != "http" && e.URL.Scheme != "https" {
					t.Errorf("endpoint %s", e.URL)
				}
				if again, err := endpointURL(e.URL.String()); err != nil || *again != *e.URL {
					t.Errorf("endpoint %s is read as %v, %v", e.URL, again, err)
				}
			}
			if m.Rewrite("library/nginx") == "" {
				t.Error("a repository without a name")
			}
			if a := r.Host(name).Auth; a.Username == "" && a.Password != "" {
				t.Error("a password without a user")
			}
		}
	})
}
