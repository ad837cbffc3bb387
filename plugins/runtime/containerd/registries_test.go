package containerd

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/k3m-io/k3m/test/imageregistry"
)

// TestRegistries pulls through CRI as registries.yaml says, while that is made, broken,
// mended and removed.
func TestRegistries(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	registry, err := imageregistry.Start(ln, imageregistry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.Close)
	for _, repository := range []string{"copies/app", "other/app"} {
		image, err := random.Image(1000, 2)
		if err == nil {
			err = registry.Push(t.Context(), repository, "1", image)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t)
	file, ca := n.config.Registries, filepath.Join(n.facts.Paths.AgentDir, "ca.pem")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name+".next", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".next", name); err != nil {
			t.Fatal(err)
		}
	}
	n.start() // without a file, and without its directory
	write(ca, string(registry.CA))
	pull := func(image string) error {
		_, images := n.cri()
		_, err := images.PullImage(context.Background(), &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: image}})
		return err
	}
	mirrors := func(folder string) string {
		return `{mirrors: {"*": {endpoint: ["` + registry.Host + `"], rewrite: {"^(.*)$": "` + folder + `/$1"}}}, configs: {"` + registry.Host +
			`": {auth: {username: ` + imageregistry.User + `, password: ` + imageregistry.Password + `}, tls: {ca_file: ` + ca + `}}}}`
	}

	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	write(file, mirrors("copies"))
	n.waitLog(t, "exists=true")
	if err := pull("registry.k3m.test/app:1"); err != nil {
		t.Error(err)
	}
	if asked := registry.Requests(); !strings.Contains(asked, "me GET /v2/copies/app/blobs/") {
		t.Errorf("the registry was asked for\n%s", asked)
	}

	write(file, "mirors: {}")
	n.waitLog(t, "degraded: reason=\""+file+`:1:1: unknown key \"mirors\", did you mean`)
	if err := pull("registry2.k3m.test/app:1"); err != nil {
		t.Errorf("what was in force before a mistake stays, but: %v", err)
	}
	registry.Requests()

	ready := strings.Count(n.log.String(), "said that it is ready")
	write(file, mirrors("other"))
	n.waitFor(t, "to be ready again", func(log string) bool { return strings.Count(log, "said that it is ready") > ready })
	if err := pull("registry3.k3m.test/app:1"); err != nil {
		t.Error(err)
	}
	if asked := registry.Requests(); !strings.Contains(asked, "me GET /v2/other/app/manifests/") {
		t.Errorf("the registry was asked for\n%s", asked)
	}

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	n.waitLog(t, "exists=false")
	if err := pull("registry4.k3m.test/app:1"); err == nil {
		t.Error("the mirror of a file that was removed is still used")
	}
	if strings.Contains(n.log.String(), imageregistry.Password) {
		t.Error("the log tells the password")
	}
}
