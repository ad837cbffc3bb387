package containerd

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestSandboxImage tries to put something else in the place of the carried image.
func TestSandboxImage(t *testing.T) {
	n := newNode(t)
	n.start()
	carried := n.carried(t)
	file := func(t *testing.T, data []byte) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "archive.tar")
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const refusal = "nothing is imported since the archive names another image " + testPause + ", which is the node's own sandbox image"
	t.Run("an archive in the directory can't replace it", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(n.facts.Paths.ImagesDir, "evil.tar"), archiveOf(t, testPause), 0o644); err != nil {
			t.Fatal(err)
		}
		n.waitLog(t, refusal)
		n.checkSandboxImage(t, carried)
	})
	for _, name := range []string{testPause, carried.pinned} {
		t.Run("import by hand can't replace "+name, func(t *testing.T) {
			err := importFiles(context.Background(), io.Discard, []string{file(t, archiveOf(t, name))}, n.layout)
			if err == nil || !strings.Contains(err.Error(), "which is the node's own sandbox image") {
				t.Errorf("error %v", err)
			}
			n.checkSandboxImage(t, carried)
		})
	}
	t.Run("the carried image itself may be imported", func(t *testing.T) {
		if err := importFiles(context.Background(), io.Discard, []string{carried.file}, n.layout); err != nil {
			t.Error(err)
		}
	})
	t.Run("sandboxes don't use a replaced tag, and the next start mends it", func(t *testing.T) {
		images := n.store(t)
		images.labels = map[string]string{carriedLabel: "true"} // replaces it, as a pull does, which nobody can refuse
		if _, err := images.load(context.Background(), bytes.NewReader(archiveOf(t, testPause))); err != nil {
			t.Fatal(err)
		}
		ctx := namespaces.WithNamespace(context.Background(), namespace)
		if images.digest(ctx, testPause) == carried.digest {
			t.Fatal("the tag was not replaced")
		}
		pods, _ := n.cri()
		s, err := pods.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: n.sandboxConfig(t, "after")})
		if err != nil {
			t.Fatal(err)
		}
		container, err := images.client.ContainerService().Get(ctx, s.PodSandboxId)
		if err != nil || container.Image != carried.pinned {
			t.Errorf("the sandbox is made of %q (%v), want %q", container.Image, err, carried.pinned)
		}
		n.stop()
		n.start()
		n.checkSandboxImage(t, carried)
	})
	t.Run("an upgrade brings its own", func(t *testing.T) {
		n.stop()
		next := pauseImage(t)
		next.Config.User = "65534:65534"
		writeImage(t, carried.file, next)
		upgraded := n.carried(t)
		if upgraded.digest == carried.digest {
			t.Fatal("the two are one")
		}
		n.start()
		n.checkSandboxImage(t, upgraded)
	})
}

// TestOwnSandboxImage runs a sandbox of an image that an archive brings, and goes back to the
// carried one.
func TestOwnSandboxImage(t *testing.T) {
	const own = "registry.test/pause:own"
	n := newNode(t)
	n.facts.PauseImage = own
	image := pauseImage(t)
	image.Name = own
	writeImage(t, filepath.Join(n.facts.Paths.ImagesDir, "pause.tar"), image)
	n.start()
	n.waitPinned(t, own, true)
	images := n.store(t)
	ctx := namespaces.WithNamespace(context.Background(), namespace)
	pods, _ := n.cri()
	s, err := pods.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: n.sandboxConfig(t, "own")})
	if err != nil {
		t.Fatal(err)
	}
	container, err := images.client.ContainerService().Get(ctx, s.PodSandboxId)
	if err != nil || container.Image != own {
		t.Errorf("the sandbox is made of %q (%v), want %q", container.Image, err, own)
	}
	image.Config.User = "65534:65534"
	writeImage(t, filepath.Join(n.facts.Paths.ImagesDir, "next.tar"), image)
	n.waitLog(t, "file=next.tar") // who chose it may also replace it

	n.stop()
	n.facts.PauseImage = testPause
	for _, file := range []string{"pause.tar", "next.tar"} {
		if err := os.Remove(filepath.Join(n.facts.Paths.ImagesDir, file)); err != nil {
			t.Fatal(err)
		}
	}
	n.start()
	n.waitPinned(t, own, false)
	n.checkSandboxImage(t, n.carried(t))
}

// TestFailedImportKeepsNames imports an archive that can't be unpacked, of a name that is
// taken.
func TestFailedImportKeepsNames(t *testing.T) {
	n := newNode(t)
	n.start()
	images := n.store(t)
	ctx := namespaces.WithNamespace(context.Background(), namespace)
	const name = "docker.io/library/tiny:1"
	if _, err := images.load(ctx, bytes.NewReader(dockerArchive(t, "tiny:1"))); err != nil {
		t.Fatal(err)
	}
	before := images.digest(ctx, name)
	broken := dockerArchiveOf(t, "tiny:1", []digest.Digest{digest.FromString("another layer")})
	if _, err := images.load(ctx, bytes.NewReader(broken)); err == nil || !strings.Contains(err.Error(), "unpack "+name) {
		t.Errorf("error %v", err)
	}
	if after := images.digest(ctx, name); before == "" || after != before {
		t.Errorf("the name is %q's, was %q's", after, before)
	}
}

func TestSandboxImageArchive(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"another image", archiveOf(t, "registry.test/x:1"), "it does not hold " + testPause},
		{"an empty file", nil, "it has no index.json"},
		{"no archive", bytes.Repeat([]byte("x"), 1024), "invalid tar header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(dir, "pause.tar")
			if err := os.WriteFile(file, c.data, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := openSandboxImage(file, testPause); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func (n *node) carried(t *testing.T) sandboxImage {
	t.Helper()
	carried, err := openSandboxImage(filepath.Join(n.facts.Paths.CarriedImagesDir, "pause.tar"), testPause)
	if err != nil {
		t.Fatal(err)
	}
	return carried
}

// store is one as that of k3m image import.
func (n *node) store(t *testing.T) store {
	t.Helper()
	c, err := client.New(n.socket, client.WithDefaultNamespace(namespace), client.WithDefaultPlatform(platforms.Default()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp(c) })
	return store{client: c}
}

// checkSandboxImage wants the image under its two names, pinned, and nothing else pinned.
func (n *node) checkSandboxImage(t *testing.T, want sandboxImage) {
	t.Helper()
	ctx := namespaces.WithNamespace(context.Background(), namespace)
	images := n.store(t)
	for _, name := range []string{want.name, want.pinned} {
		if got := images.digest(ctx, name); got != want.digest {
			t.Errorf("%s is %q, want %q", name, got, want.digest)
		}
	}
	for _, i := range n.list(t) {
		if i.Pinned != (i.Name+":"+i.Tag == want.name) || (i.Pinned && i.Digest != want.digest.String()) {
			t.Errorf("in the list: %+v", i)
		}
	}
}
