package pull

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/k3m-io/k3m/registries"
	"github.com/k3m-io/k3m/test/imageregistry"
)

// store is a registry with TLS, and the files of its CA.
type store struct {
	*imageregistry.Registry
	host, ca, key string
}

const user, password = imageregistry.User, imageregistry.Password

func newStore(t *testing.T, repositories ...string) store {
	t.Helper()
	return newStoreOf(t, imageregistry.Options{}, repositories...)
}

func newStoreOf(t *testing.T, options imageregistry.Options, repositories ...string) store {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, err := imageregistry.Start(ln, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	s := store{r, r.Host, filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "key.pem")}
	for file, text := range map[string][]byte{s.ca: r.CA, s.key: r.Key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, repository := range repositories {
		image, err := random.Image(100, 1)
		if err == nil {
			err = r.Push(t.Context(), repository, "1", image)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// puller stands for containerd's own service: it resolves and fetches as that does.
type puller struct{ src any }

func (p *puller) Transfer(ctx context.Context, src, _ any, _ ...transfer.Opt) error {
	p.src = src
	from := src.(transfer.ImageFetcher)
	ref, desc, err := from.Resolve(ctx)
	if err != nil {
		return err
	}
	fetcher, err := from.Fetcher(ctx, ref)
	if err != nil {
		return err
	}
	manifest, err := fetcher.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer manifest.Close()
	_, err = io.Copy(io.Discard, manifest)
	return err
}

// secretOf is what a pod's pull secret gives for every host, as CRI does.
type secretOf struct {
	user, password string
	err            error
}

func (s secretOf) GetCredentials(_ context.Context, _, host string) (registry.Credentials, error) {
	return registry.Credentials{Host: host, Username: s.user, Secret: s.password}, s.err
}

// settings are those of a text.
func settings(t *testing.T, text string, noDefault bool) *Settings {
	t.Helper()
	r, err := registries.Parse("registries.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s := NewSettings(t.TempDir(), noDefault)
	if _, err := s.Apply(r, "registries.yaml"); err != nil {
		t.Fatal(err)
	}
	return s
}

// pull asks for an image as CRI does.
func (s *Settings) pull(t *testing.T, image string, secret secretOf) error {
	t.Helper()
	asked, err := registry.NewOCIRegistry(t.Context(), image, registry.WithHostDir(s.dir), registry.WithCredentials(secret))
	if err != nil {
		t.Fatal(err)
	}
	return s.Transferrer(&puller{}).Transfer(t.Context(), asked, nil)
}

func TestPull(t *testing.T) {
	mirror, other := newStore(t, "copies/library/app", "app"), newStore(t, "app")
	login := fmt.Sprintf("{auth: {username: %s, password: %s}, tls: {ca_file: %%s}}", user, password)
	mirrorLogin, otherLogin := fmt.Sprintf(login, mirror.ca), fmt.Sprintf(login, other.ca)
	for _, c := range []struct {
		name      string
		text      string
		image     string
		noDefault bool
		secret    secretOf
		// requests that each store must have seen; "" is none at all.
		mirror, other string
		err           string
	}{
		{
			name:  "a mirror with a certificate, a login and a rewrite",
			text:  `{mirrors: {docker.io: {endpoint: ["https://` + mirror.host + `"], rewrite: {"^library/(.*)": "copies/library/$1"}}}, configs: {"` + mirror.host + `": ` + mirrorLogin + `}}`,
			image: "docker.io/library/app:1", mirror: "me GET /v2/copies/library/app/manifests/sha256:",
		},
		{
			name:  "the wildcard, also for a registry that has only a config",
			text:  `{mirrors: {"*": {endpoint: ["` + mirror.host + `"]}}, configs: {"` + mirror.host + `": ` + mirrorLogin + `, quay.k3m.test: {tls: {insecure_skip_verify: true}}}}`,
			image: "quay.k3m.test/app:1", mirror: "me GET /v2/app/manifests/sha256:",
		},
		{
			name:  "what a mirror lacks comes from the registry itself",
			text:  `{mirrors: {"` + other.host + `": {endpoint: ["` + mirror.host + `"], rewrite: {"^": "lacking/"}}}, configs: {"` + mirror.host + `": ` + mirrorLogin + `, "` + other.host + `": ` + otherLogin + `}}`,
			image: other.host + "/app:1", mirror: "me HEAD /v2/lacking/app/manifests/1", other: "me GET /v2/app/manifests/sha256:",
		},
		{
			name:      "but not if the registry is not to be asked",
			text:      `{mirrors: {"` + other.host + `": {endpoint: ["` + mirror.host + `"], rewrite: {"^": "lacking/"}}}, configs: {"` + mirror.host + `": ` + mirrorLogin + `, "` + other.host + `": ` + otherLogin + `}}`,
			noDefault: true,
			image:     other.host + "/app:1", mirror: "me HEAD /v2/lacking/app/manifests/1", err: "not found",
		},
		{
			name:      "a path in place of /v2",
			text:      `{mirrors: {docker.io: {endpoint: ["https://` + mirror.host + `/v2/copies"]}}, configs: {"` + mirror.host + `": ` + mirrorLogin + `}}`,
			noDefault: true,
			image:     "docker.io/library/app:1", mirror: "me GET /v2/copies/library/app/manifests/sha256:",
		},
		{
			name:  "a pull secret, of which the mirror hears nothing",
			text:  `{mirrors: {"` + other.host + `": {endpoint: ["` + mirror.host + `"], rewrite: {"^": "lacking/"}}}, configs: {"` + mirror.host + `": ` + mirrorLogin + `, "` + other.host + `": {tls: {ca_file: ` + other.ca + `}}}}`,
			image: other.host + "/app:1", secret: secretOf{user: user, password: password},
			mirror: "me HEAD /v2/lacking/app/manifests/1", other: "me GET /v2/app/manifests/sha256:",
		},
		{
			name:  "a pull secret is stronger than the node's login",
			text:  `{configs: {"` + other.host + `": ` + otherLogin + `}}`,
			image: other.host + "/app:1", secret: secretOf{user: "stranger", password: "x"},
			other: "stranger HEAD /v2/app/manifests/1", err: "401",
		},
		{
			name:  "a pull secret that can't be read",
			text:  `{configs: {"` + other.host + `": {tls: {ca_file: ` + other.ca + `}}}}`,
			image: other.host + "/app:1", secret: secretOf{err: errors.New("no base64")},
			other: "HEAD /v2/app/manifests/1", err: "look at the pod's pull secret",
		},
		{
			name:      "a certificate that nobody vouches for",
			text:      `{mirrors: {docker.io: {endpoint: ["https://` + mirror.host + `"]}}}`,
			noDefault: true,
			image:     "docker.io/app:1", err: "certificate signed by unknown authority",
		},
		{
			name:      "unless nobody is asked to",
			text:      `{mirrors: {docker.io: {endpoint: ["https://` + mirror.host + `"]}}, configs: {"` + mirror.host + `": {tls: {insecure_skip_verify: true}, auth: {auth: ` + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + `}}}}`,
			noDefault: true,
			image:     "docker.io/app:1", mirror: "me GET /v2/app/manifests/sha256:",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := settings(t, c.text, c.noDefault).pull(t, c.image, c.secret)
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error is %v, want %q", err, c.err)
			}
			for want, asked := range map[string]string{c.mirror: mirror.Requests(), c.other: other.Requests()} {
				if (want == "") != (asked == "") || !strings.Contains(asked, want) {
					t.Errorf("asked for\n%s\nwant %q", asked, want)
				}
			}
		})
	}
}

// TestOtherLogins shows a certificate, and gets tokens for repositories that are rewritten.
func TestOtherLogins(t *testing.T) {
	s := newStoreOf(t, imageregistry.Options{ClientCertificate: true, Tokens: true}, "copies/app")
	mirror := `{mirrors: {docker.io: {endpoint: ["https://` + s.host + `"], rewrite: {"^library/": "copies/"}}}, configs: {"` + s.host + `": {auth: {identity_token: %s}, tls: {%s}}}}`
	tls := "ca_file: " + s.ca + ", cert_file: " + s.ca + ", key_file: " + s.key
	if err := settings(t, fmt.Sprintf(mirror, imageregistry.RefreshToken, tls), true).pull(t, "docker.io/library/app:1", secretOf{}); err != nil {
		t.Errorf("%v, after\n%s", err, s.Requests())
	}
	for token, tls := range map[string]string{"stolen": tls, imageregistry.RefreshToken: "ca_file: " + s.ca} {
		if err := settings(t, fmt.Sprintf(mirror, token, tls), true).pull(t, "docker.io/library/app:1", secretOf{}); err == nil {
			t.Errorf("pulled with the token %s and %s", token, tls)
		}
	}
}

// TestOtherClients: `ctr` and its like say themselves where images come from.
func TestOtherClients(t *testing.T) {
	s := settings(t, `{mirrors: {"*": {endpoint: ["https://127.0.0.1:1"]}}}`, true)
	store := newStore(t, "app")
	asked, err := registry.NewOCIRegistry(t.Context(), store.host+"/app:1", registry.WithCredentials(secretOf{user: user, password: password}))
	if err != nil {
		t.Fatal(err)
	}
	inner := &puller{}
	if err := s.Transferrer(inner).Transfer(t.Context(), asked, nil); err != nil {
		t.Error(err)
	}
	if inner.src != asked {
		t.Errorf("it was given %T", inner.src)
	}
}

func TestApply(t *testing.T) {
	s := settings(t, `{mirrors: {docker.io: {endpoint: [a.test]}, "b.test:5000": {endpoint: [a.test]}, "*": {endpoint: [a.test, "http://c.test/x"]}}, configs: {a.test: {tls: {cert_file: /c, key_file: /k}}}}`, false)
	file := func(dir string) string { return filepath.Join(s.dir, dir, "hosts.toml") }
	text, err := os.ReadFile(file("_default"))
	want := `# Written by k3m from registries.yaml; what is changed here is lost.

[host."https://a.test"]
capabilities = ['pull', 'resolve']
client = [['/c', '/k']]

[host."http://c.test/x"]
capabilities = ['pull', 'resolve']
override_path = true
`
	if err != nil || string(text) != want {
		t.Errorf("the wildcard's file is\n%s(%v), want\n%s", text, err, want)
	}
	// An operator's own file.
	if err := os.MkdirAll(filepath.Dir(file("mine.test")), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file("mine.test"), []byte(`server = "https://x.test"`), 0o644); err != nil {
		t.Fatal(err)
	}
	next, err := registries.Parse("", []byte(`{mirrors: {"b.test:5000": {endpoint: [a.test]}, mine.test: {endpoint: [a.test]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	own, err := s.Apply(next, "registries.yaml")
	if err != nil || len(own) != 1 || own[0] != "mine.test" {
		t.Errorf("the operator's files are %q, %v", own, err)
	}
	for dir, there := range map[string]bool{"_default": false, "docker.io": false, "b.test_5000_": true, "mine.test": true} {
		info, err := os.Stat(file(dir))
		if (err == nil) != there {
			t.Errorf("%s is there: %v, want %v", dir, err == nil, there)
		}
		if err == nil && dir != "mine.test" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", dir, info.Mode())
		}
	}
}
