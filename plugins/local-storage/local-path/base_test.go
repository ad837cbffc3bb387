package localpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func newBase(t *testing.T) *base {
	t.Helper()
	b := &base{path: filepath.Join(t.TempDir(), "storage")}
	must(t, b.prepare())
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeVolume makes a volume's directory and returns its full path.
func makeVolume(t *testing.T, b *base, pv, path string) string {
	t.Helper()
	dir, err := b.stage(pv)
	must(t, err)
	dir.Close()
	must(t, b.publish(pv, path))
	return filepath.Join(b.path, path)
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there (%v)", path, err)
	}
}

func there(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestVolumeComesAndGoes(t *testing.T) {
	b := newBase(t)
	old := unix.Umask(0o077)
	dir := makeVolume(t, b, "pvc-1", "team/data")
	unix.Umask(old)
	st, err := os.Stat(dir)
	must(t, err)
	if st.Mode().Perm() != volumeMode {
		t.Errorf("mode %v", st.Mode())
	}
	other := makeVolume(t, b, "pvc-2", "team/other")
	must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "a", "b", "file"), []byte("x"), 0o400))
	must(t, b.remove(t.Context(), "team/data"))
	gone(t, dir)
	there(t, other)
	must(t, b.remove(t.Context(), "team/data")) // once more is no error
	must(t, b.remove(t.Context(), "team/other"))
	gone(t, filepath.Join(b.path, "team"))
	there(t, b.path)
}

func TestPublishReplacesNothing(t *testing.T) {
	b := newBase(t)
	for name, make := range map[string]func(string) error{
		"directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"file":      func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"link":      func(p string) error { return os.Symlink("/nowhere", p) },
	} {
		must(t, make(filepath.Join(b.path, name)))
		dir, err := b.stage("pvc-" + name)
		must(t, err)
		dir.Close()
		if err := b.publish("pvc-"+name, name); !errors.Is(err, errTaken) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, b.unstage("pvc-"+name))
	}
	entries, err := os.ReadDir(b.path)
	must(t, err)
	if len(entries) != 3 {
		t.Errorf("%v", entries)
	}
}

func TestNoVolumeBelowWhatOthersWrite(t *testing.T) {
	b := newBase(t)
	makeVolume(t, b, "pvc-1", "team")
	dir, err := b.stage("pvc-2")
	must(t, err)
	dir.Close()
	if err := b.publish("pvc-2", "team/data"); err == nil || !strings.Contains(err.Error(), "a volume itself") {
		t.Errorf("%v", err)
	}
}

func TestPrepareRemovesWhatWasNeverFinished(t *testing.T) {
	b := newBase(t)
	dir, err := b.stage("pvc-1")
	must(t, err)
	dir.Close()
	full := filepath.Join(b.path, stagingPrefix+"not-ours")
	must(t, os.MkdirAll(filepath.Join(full, "data"), 0o755))
	must(t, b.prepare())
	gone(t, filepath.Join(b.path, stagingPrefix+"pvc-1"))
	there(t, filepath.Join(full, "data"))
}

// TestRemoveStaysInside: whatever a pod puts into its volume, only the volume goes.
func TestRemoveStaysInside(t *testing.T) {
	b := newBase(t)
	outside := filepath.Join(filepath.Dir(b.path), "outside")
	must(t, os.MkdirAll(filepath.Join(outside, "sub"), 0o755))
	precious := filepath.Join(outside, "sub", "precious")
	must(t, os.WriteFile(precious, []byte("x"), 0o600))
	dir := makeVolume(t, b, "pvc-1", "v")
	must(t, os.Symlink(outside, filepath.Join(dir, "absolute")))
	must(t, os.Symlink("../../outside", filepath.Join(dir, "relative")))
	must(t, os.Symlink("..", filepath.Join(dir, "up")))
	must(t, os.Symlink(precious, filepath.Join(dir, "file")))
	must(t, os.Link(precious, filepath.Join(dir, "hard")))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "a\nb \x1b[31m"), nil, 0o600))
	must(t, b.remove(t.Context(), "v"))
	gone(t, dir)
	there(t, precious)
}

// TestRemoveOfLinkInPlaceOfVolume: nothing is opened through a link at the volume's own
// path, or above it.
func TestRemoveOfLinkInPlaceOfVolume(t *testing.T) {
	b := newBase(t)
	outside := filepath.Join(filepath.Dir(b.path), "outside")
	must(t, os.MkdirAll(filepath.Join(outside, "v"), 0o755))
	must(t, os.Symlink(outside, filepath.Join(b.path, "link")))
	must(t, b.remove(t.Context(), "link"))
	gone(t, filepath.Join(b.path, "link"))
	there(t, outside)

	must(t, os.Symlink(outside, filepath.Join(b.path, "team")))
	if err := b.remove(t.Context(), "team/v"); err == nil {
		t.Error("went through a link")
	}
	if _, err := b.volume("team/v"); err == nil {
		t.Error("opened through a link")
	}
	for _, path := range []string{"../outside", "team/../../outside", outside} {
		if err := b.remove(t.Context(), path); err == nil {
			t.Errorf("removed %s", path)
		}
	}
	there(t, filepath.Join(outside, "v"))
}

// TestRemoveWhileDirectoryBecomesLink swaps a directory and a link to the outside as fast
// as it can while trees with it are removed.
func TestRemoveWhileDirectoryBecomesLink(t *testing.T) {
	b := newBase(t)
	outside := filepath.Join(filepath.Dir(b.path), "outside")
	must(t, os.MkdirAll(outside, 0o755))
	precious := filepath.Join(outside, "precious")
	must(t, os.WriteFile(precious, nil, 0o600))
	dir := filepath.Join(b.path, "v")
	for i := range 40 {
		makeVolume(t, b, fmt.Sprintf("pvc-%d", i), "v")
		for j := range 50 {
			sub := filepath.Join(dir, fmt.Sprint(j))
			must(t, os.Mkdir(sub, 0o755))
			must(t, os.WriteFile(filepath.Join(sub, "precious"), nil, 0o600))
		}
		must(t, os.Symlink(outside, filepath.Join(dir, "link")))
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for j := 0; ; j = (j + 1) % 50 {
				select {
				case <-stop:
					return
				default:
				}
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, fmt.Sprint(j)), unix.AT_FDCWD, filepath.Join(dir, "link"), unix.RENAME_EXCHANGE)
			}
		}()
		err := b.remove(t.Context(), "v")
		close(stop)
		<-done
		if err != nil {
			must(t, b.remove(t.Context(), "v")) // it may give up; it may not stray
		}
		there(t, precious)
	}
}

func TestRemoveVeryDeepTree(t *testing.T) {
	b := newBase(t)
	dir := makeVolume(t, b, "pvc-1", "v")
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	const depth = 3000 // paths of more than PATH_MAX, more directories than descriptors
	for range depth {
		must(t, unix.Mkdirat(fd, "deeper", 0o755))
		next, err := unix.Openat(fd, "deeper", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	must(t, b.remove(t.Context(), "v"))
	gone(t, dir)
}

func TestRemoveManyFiles(t *testing.T) {
	b := newBase(t)
	dir := makeVolume(t, b, "pvc-1", "v")
	for i := range 3*batch + 1 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600))
	}
	must(t, b.remove(t.Context(), "v"))
	gone(t, dir)
}

func TestRemoveCrossesNoMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	b := newBase(t)
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	must(t, os.WriteFile(precious, nil, 0o600))
	dir := makeVolume(t, b, "pvc-1", "v")
	at := filepath.Join(dir, "mounted")
	must(t, os.Mkdir(at, 0o755))
	must(t, unix.Mount(outside, at, "", unix.MS_BIND, ""))
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = unix.Unmount(at, unix.MNT_DETACH)
		}
	})
	if err := b.remove(t.Context(), "v"); err == nil || !strings.Contains(err.Error(), "mount point") {
		t.Errorf("%v", err)
	}
	there(t, precious)
	must(t, unix.Unmount(at, 0))
	mounted = false
	must(t, b.remove(t.Context(), "v"))
	gone(t, dir)
}

func TestFree(t *testing.T) {
	free, size, err := newBase(t).free()
	if err != nil || free <= 0 || size < free {
		t.Errorf("%d of %d, %v", free, size, err)
	}
}
