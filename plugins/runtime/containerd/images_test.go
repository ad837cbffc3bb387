package containerd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestImages drops archives into the directory of a running node, and imports by hand.
func TestImages(t *testing.T) {
	n := newNode(t)
	drop := func(t *testing.T, file string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(n.facts.Paths.ImagesDir, file), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	drop(t, "before.tar", archiveOf(t, "registry.test/before:1"))
	n.start()

	t.Run("an archive that is there at the start is imported", func(t *testing.T) {
		n.waitImage("registry.test/before:1")
	})
	t.Run("the sandbox image is there and pinned", func(t *testing.T) {
		found := n.list(t)
		for _, i := range found {
			if i.Name+":"+i.Tag == testPause && i.Pinned {
				return
			}
		}
		t.Errorf("images %+v", found)
	})
	for _, c := range []struct {
		name, file string
		data       []byte
		image      string
	}{
		{"a plain OCI archive", "oci.tar", archiveOf(t, "registry.test/oci:1"), "registry.test/oci:1"},
		{"gzip", "gzip.tgz", gzipped(t, archiveOf(t, "registry.test/gzip:1")), "registry.test/gzip:1"},
		{"zstd", "zstd.tar.zst", zstded(t, archiveOf(t, "registry.test/zstd:1")), "registry.test/zstd:1"},
		{"compression is told by the content", "misnamed.tar", zstded(t, archiveOf(t, "registry.test/misnamed:1")), "registry.test/misnamed:1"},
		{"a docker archive, whose short name is Docker's", "docker.tar", dockerArchive(t, "tiny:1"), "docker.io/library/tiny:1"},
	} {
		t.Run(c.name+" is imported when it arrives", func(t *testing.T) {
			drop(t, c.file, c.data)
			n.waitImage(c.image)
		})
	}
	t.Run("a file that is moved in is imported", func(t *testing.T) {
		from := filepath.Join(n.facts.Paths.AgentDir, "moved.tar")
		if err := os.WriteFile(from, archiveOf(t, "registry.test/moved:1"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(from, filepath.Join(n.facts.Paths.ImagesDir, "moved.tar")); err != nil {
			t.Fatal(err)
		}
		n.waitImage("registry.test/moved:1")
	})
	t.Run("a file that is linked in is imported", func(t *testing.T) {
		from := filepath.Join(n.facts.Paths.AgentDir, "linked.tar")
		if err := os.WriteFile(from, archiveOf(t, "registry.test/linked:1"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(from, filepath.Join(n.facts.Paths.ImagesDir, "linked.tar")); err != nil {
			t.Fatal(err)
		}
		n.waitImage("registry.test/linked:1")
	})
	t.Run("a slow copy is not looked at before it ends", func(t *testing.T) {
		data := archiveOf(t, "registry.test/slow:1")
		f, err := os.Create(filepath.Join(n.facts.Paths.ImagesDir, "slow.tar"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, part := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
			if _, err := f.Write(part); err != nil {
				t.Fatal(err)
			}
			drop(t, "meanwhile.tar", archiveOf(t, "registry.test/meanwhile:1"))
			n.waitImage("registry.test/meanwhile:1")
		}
		f.Close()
		n.waitImage("registry.test/slow:1")
		if strings.Contains(n.log.String(), "slow.tar error") {
			t.Error("the half was tried")
		}
	})
	t.Run("a file that was closed is imported though the kernel still counts a writer", func(t *testing.T) {
		drop(t, "open.tar", nil)
		n.waitLog(t, "images/open.tar") // empty, so broken
		f, err := os.OpenFile(filepath.Join(n.facts.Paths.ImagesDir, "open.tar"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		drop(t, "open.tar", archiveOf(t, "registry.test/open:1"))
		n.waitImage("registry.test/open:1")
	})
	t.Run("a broken archive is reported, and tried again when it changes", func(t *testing.T) {
		data := archiveOf(t, "registry.test/mended:1")
		drop(t, "broken.tar", data[:len(data)/2])
		n.waitLog(t, "broken.tar")
		drop(t, "others.tar", archiveOf(t, "registry.test/others:1"))
		n.waitImage("registry.test/others:1")
		n.waitLog(t, "degraded: reason=\"import "+filepath.Join(n.facts.Paths.ImagesDir, "broken.tar"))
		if n.has(t, "registry.test/mended:1") {
			t.Error("half of an archive was imported")
		}
		ready := strings.Count(n.log.String(), "said that it is ready")
		drop(t, "broken.tar", data)
		n.waitImage("registry.test/mended:1")
		n.waitFor(t, "to be ready again", func(log string) bool { return strings.Count(log, "said that it is ready") > ready })
		if tries := strings.Count(n.log.String(), "file="+filepath.Join(n.facts.Paths.ImagesDir, "broken.tar")); tries != 1 {
			t.Errorf("the broken file was reported %d times", tries)
		}
	})
	t.Run("a broken archive is forgotten when it is removed", func(t *testing.T) {
		file := filepath.Join(n.facts.Paths.ImagesDir, "rubbish.tar.zst")
		drop(t, "rubbish.tar.zst", []byte("rubbish"))
		n.waitLog(t, "degraded: reason=\"import "+file)
		ready := strings.Count(n.log.String(), "said that it is ready")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		n.waitFor(t, "to be ready again", func(log string) bool { return strings.Count(log, "said that it is ready") > ready })
	})
	t.Run("images are pinned as long as their archive is there", func(t *testing.T) {
		drop(t, "pinned.tar", archiveOf(t, "registry.test/pinned:1"))
		n.waitPinned(t, "registry.test/pinned:1", true)
		drop(t, "pinned-too.tar", archiveOf(t, "registry.test/pinned:1")) // the same bytes
		drop(t, "after-pinned.tar", archiveOf(t, "registry.test/after-pinned:1"))
		n.waitImage("registry.test/after-pinned:1")
		for _, file := range []string{"pinned.tar", "after-pinned.tar"} {
			if err := os.Remove(filepath.Join(n.facts.Paths.ImagesDir, file)); err != nil {
				t.Fatal(err)
			}
		}
		n.waitPinned(t, "registry.test/after-pinned:1", false)
		n.waitPinned(t, "registry.test/pinned:1", true)
		if err := os.Remove(filepath.Join(n.facts.Paths.ImagesDir, "pinned-too.tar")); err != nil {
			t.Fatal(err)
		}
		n.waitPinned(t, "registry.test/pinned:1", false)
	})
	t.Run("the same bytes are imported once", func(t *testing.T) {
		drop(t, "twin.tar", archiveOf(t, "registry.test/oci:1"))
		drop(t, "after-twin.tar", archiveOf(t, "registry.test/after-twin:1"))
		n.waitImage("registry.test/after-twin:1")
		if strings.Contains(n.log.String(), "file=twin.tar") {
			t.Error("the twin was imported")
		}
	})
	t.Run("an image that was removed is imported again with its archive", func(t *testing.T) {
		const name = "registry.test/oci:1"
		_, images := n.cri()
		if _, err := images.RemoveImage(context.Background(), &runtime.RemoveImageRequest{Image: &runtime.ImageSpec{Image: name}}); err != nil {
			t.Fatal(err)
		}
		drop(t, "oci-again.tar", archiveOf(t, name))
		n.waitImage(name)
	})
	t.Run("a directory that was removed is watched again", func(t *testing.T) {
		if err := os.RemoveAll(n.facts.Paths.ImagesDir); err != nil {
			t.Fatal(err)
		}
		n.waitLog(t, "making it again")
		for { // the node makes it
			if _, err := os.Stat(n.facts.Paths.ImagesDir); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		drop(t, "again.tar", archiveOf(t, "registry.test/again:1"))
		n.waitImage("registry.test/again:1")
	})
	t.Run("import by hand", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "hand.tar.gz")
		if err := os.WriteFile(file, gzipped(t, archiveOf(t, "registry.test/hand:1")), 0o644); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := importFiles(context.Background(), &out, []string{file}, n.layout); err != nil {
			t.Fatal(err)
		}
		if out.String() != "registry.test/hand:1\n" {
			t.Errorf("it wrote %q", &out)
		}
		n.waitImage("registry.test/hand:1")
	})
	t.Run("a name that is imported anew is the new image's, which has its ID", func(t *testing.T) {
		images := n.store(t)
		ctx := namespaces.WithNamespace(context.Background(), namespace)
		const name = "registry.test/anew:1"
		drop(t, "anew-1.tar", archiveOf(t, name))
		n.waitImage(name)
		first := images.digest(ctx, name)
		next := tinyImage(name)
		next.Files["/bin/x"] = []byte("the next")
		writeImage(t, filepath.Join(n.facts.Paths.ImagesDir, "anew-2.tar"), next)
		n.waitLog(t, "file=anew-2.tar")
		_, status := n.cri()
		answer, err := status.ImageStatus(ctx, &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: name}})
		if err != nil || answer.Image == nil {
			t.Fatal(answer, err)
		}
		second := images.digest(ctx, name)
		if byID := images.digest(ctx, answer.Image.Id); second == first || byID != second {
			t.Errorf("it is %s, was %s; its ID names %q", second, first, byID)
		}
	})
	t.Run("an image can be removed by its ID", func(t *testing.T) {
		_, images := n.cri()
		answer, err := images.ImageStatus(context.Background(), &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: "registry.test/gzip:1"}})
		if err != nil || answer.Image == nil {
			t.Fatal(answer, err)
		}
		id := &runtime.ImageSpec{Image: answer.Image.Id}
		if _, err := images.RemoveImage(context.Background(), &runtime.RemoveImageRequest{Image: id}); err != nil {
			t.Fatal(err)
		}
		for _, i := range n.list(t) {
			if i.Name == "registry.test/gzip" {
				t.Errorf("still there: %+v", i)
			}
		}
	})
	t.Run("nothing is imported again after a restart", func(t *testing.T) {
		before := strings.Count(n.log.String(), "imported an image archive")
		n.stop()
		n.start()
		drop(t, "last.tar", archiveOf(t, "registry.test/last:1"))
		n.waitLog(t, "file=last.tar")
		if after := strings.Count(n.log.String(), "imported an image archive"); after != before+1 {
			t.Errorf("%d imports after the restart, want 1", after-before)
		}
	})
}

// TestSnapshotters runs a pod on each that is not the default.
func TestSnapshotters(t *testing.T) {
	for _, snapshotter := range []string{native, fuse} {
		t.Run(snapshotter, func(t *testing.T) {
			if _, err := exec.LookPath("fuse-overlayfs"); snapshotter == fuse && err != nil {
				t.Skip("needs fuse-overlayfs")
			}
			n := newNode(t)
			n.config.Snapshotter = snapshotter
			n.start()
			file := filepath.Join(t.TempDir(), "busybox.tar")
			writeImage(t, file, busyboxImage(t, testBusybox))
			if err := importFiles(context.Background(), io.Discard, []string{file}, n.layout); err != nil {
				t.Fatal(err)
			}
			n.waitImage(testBusybox)
			_, container := n.runPod(snapshotter)
			root := n.exec(container, "/bin/cat", "/proc/mounts")
			if line, _, _ := strings.Cut(root, "\n"); strings.HasPrefix(line, "overlay ") || strings.Contains(line, fuse) != (snapshotter == fuse) {
				t.Errorf("the container's root is %s", line)
			}
			if _, err := os.Stat(filepath.Join(n.root, "io.containerd.snapshotter.v1.overlayfs")); err == nil {
				t.Error("the overlay snapshotter was started too")
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.tar")
	if err := os.WriteFile(text, bytes.Repeat([]byte("no archive "), 100), 0o644); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.tar")
	writeImage(t, good, tinyImage("registry.test/good:1"))
	l := newLayout(filepath.Join(dir, "agent"), filepath.Join(dir, "run"))
	for _, c := range []struct{ name, file, want string }{
		{"a file that is not there", filepath.Join(dir, "nowhere.tar"), "there is no such file"},
		{"a directory", dir, "it is a directory"},
		{"a file of another format", text, "it is no image archive: want a tar file"},
		{"a node that does not run", good, "no k3m node answers at " + l.socket + ": is it running"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := importFiles(context.Background(), io.Discard, []string{c.file}, l)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// has tells whether an image is there.
func (n *node) has(t *testing.T, name string) bool {
	t.Helper()
	return slices.ContainsFunc(n.list(t), func(i image) bool { return i.Name+":"+i.Tag == name })
}

// waitPinned returns when an image is pinned, or is not.
func (n *node) waitPinned(t *testing.T, name string, pinned bool) {
	t.Helper()
	n.waitFor(t, fmt.Sprintf("to have %s pinned: %v", name, pinned), func(string) bool {
		return slices.ContainsFunc(n.list(t), func(i image) bool { return i.Name+":"+i.Tag == name && i.Pinned == pinned })
	})
}

func (n *node) list(t *testing.T) []image {
	t.Helper()
	found, err := listImages(context.Background(), n.layout)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// waitLog returns when the node has logged the words.
func (n *node) waitLog(t *testing.T, words string) {
	t.Helper()
	n.waitFor(t, "to log "+words, func(log string) bool { return strings.Contains(log, words) })
}

// waitFor returns when the node's log is as wanted.
func (n *node) waitFor(t *testing.T, what string, good func(log string) bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if good(n.log.String()) {
			return
		}
	}
	t.Fatalf("waited for the node %s", what)
}
