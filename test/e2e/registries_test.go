package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"

	"github.com/k3m-io/k3m/test/harness"
	"github.com/k3m-io/k3m/test/imageregistry"
	"github.com/k3m-io/k3m/test/images"
)

// TestRegistries runs pods whose images come from registries outside of the node, with TLS and
// logins, on another snapshotter and another pause image than the defaults; and an archive that
// is broken.
func TestRegistries(t *testing.T) {
	t.Parallel()
	busybox := busybox(t)
	mirror, private := startRegistry(t), startRegistry(t)
	for repository, img := range map[string]v1.Image{"copies/busybox": busybox, "copies/hold": holding(t, busybox)} {
		if err := mirror.Push(t.Context(), repository, "1", img); err != nil {
			t.Fatal(err)
		}
	}
	if err := private.Push(t.Context(), "team/app", "1", busybox); err != nil {
		t.Fatal(err)
	}

	h := lab.NewHost(t, "registries")
	const file = "/etc/registries/registries.yaml"
	if err := os.MkdirAll(filepath.Dir(h.Path(file)), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(h.Path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("/etc/registries/mirror.pem", string(mirror.CA))
	write("/etc/registries/private.pem", string(private.CA))
	write(file, "mirorrs: {}\n")
	h.Rebase(t)
	bad(t, h, 2, []string{"server", "--private-registry=" + file}, file+`:1:1: unknown key "mirorrs", did you mean "mirrors"?`)
	bad(t, h, 2, []string{"server", "--private-registry=/etc/registries/none.yaml"}, "--private-registry: ", "no such file")
	bad(t, h, 2, []string{"server", "--snapshotter=stargz"}, `--snapshotter: unknown snapshotter "stargz"`, "overlayfs, native")
	write(file, fmt.Sprintf(`
mirrors:
  docker.io:
    endpoint: ["https://%[1]s"]
    rewrite: {"^library/(.*)$": "copies/$1"}
configs:
  "%[1]s":
    auth: {username: %[3]s, password: %[4]s}
    tls: {ca_file: /etc/registries/mirror.pem}
  "%[2]s":
    tls: {ca_file: /etc/registries/private.pem}
`, mirror.Host, private.Host, imageregistry.User, imageregistry.Password))
	h.Rebase(t)

	node := h.Serve(t, "--private-registry="+file, "--snapshotter=native", "--pause-image=hold:1", "--disable-default-registry-endpoint")
	client, err := node.WaitReady(within(t, 60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, node: node, client: client, ns: "default"}
	s.apply(strings.NewReplacer("PRIVATE", private.Host, "USER", imageregistry.User, "PASSWORD", imageregistry.Password).Replace(`
apiVersion: v1
kind: Secret
metadata: {name: login}
type: kubernetes.io/dockerconfigjson
stringData: {.dockerconfigjson: '{"auths": {"PRIVATE": {"username": "USER", "password": "PASSWORD"}}}'}
---
apiVersion: v1
kind: Pod
metadata: {name: mirrored}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "busybox:1", command: [sleep, "100000"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: secret}
spec: {terminationGracePeriodSeconds: 1, imagePullSecrets: [{name: login}], containers: [{name: c, image: "PRIVATE/team/app:1", command: [sleep, "100000"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: nobody}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "PRIVATE/team/app:1", imagePullPolicy: Always, command: [sleep, "100000"]}]}
`))
	s.pod("mirrored")
	s.pod("secret")
	s.podWhen("nobody", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, "authorization failed")
	})
	if asked := mirror.Requests(); !strings.Contains(asked, imageregistry.User+" HEAD /v2/copies/busybox/manifests/1") ||
		!strings.Contains(asked, imageregistry.User+" GET /v2/copies/hold/blobs/") {
		t.Errorf("the mirror was asked for\n%s", asked)
	}
	if root := s.kubectl("exec", "mirrored", "--", "cat", "/proc/mounts"); strings.HasPrefix(root, "overlay ") {
		t.Errorf("the native snapshotter's root is\n%s", root)
	}
	if sandboxes := good(t, h, []string{"ctr", "containers", "list"}); !strings.Contains(sandboxes, "docker.io/library/hold:1") {
		t.Errorf("no sandbox is made of --pause-image:\n%s", sandboxes)
	}
	text := good(t, h, []string{"component", "info", "runtime.containerd"})
	if strings.Contains(text+node.Logs(), imageregistry.Password) {
		t.Error("the password can be read in the log or in what is told of the component")
	}

	t.Run("a broken archive", func(t *testing.T) {
		archive := filepath.Join(h.DataDir, "agent", "images", "app.tar")
		if err := os.WriteFile(archive, []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
		watch := watchReports(t, h)
		watch.until(t, "what is wrong with the archive", func(r report) bool {
			return len(r.Problems) == 1 && r.Problems[0].What == "runtime.containerd" && strings.Contains(r.Problems[0].Why, "import "+archive)
		})
		if err := os.Remove(archive); err != nil {
			t.Fatal(err)
		}
		watch.until(t, "all is well again", func(r report) bool { return r.Well })
	})
}

// startRegistry serves outside of all nodes.
func startRegistry(t *testing.T) *imageregistry.Registry {
	t.Helper()
	ln, err := lab.Switch.Listen("tcp", net.JoinHostPort(harness.SwitchAddr.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := imageregistry.Start(ln, imageregistry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func busybox(t *testing.T) v1.Image {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "busybox.tar")
	if err := images.BuildBusybox(t.Context(), archive, images.Busybox); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(images.Busybox)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(archive, &tag)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// holding is an image that does nothing, as a pod's first process.
func holding(t *testing.T, busybox v1.Image) v1.Image {
	t.Helper()
	img, err := mutate.Config(busybox, v1.Config{Entrypoint: []string{"/bin/sleep", "1000000"}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}
