package containerd

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/sirupsen/logrus"

	"github.com/k3m-io/k3m/plugins/runtime/containerd/archive"
	"github.com/k3m-io/k3m/plugins/runtime/containerd/pause/ociarchive"
)

func TestLayout(t *testing.T) {
	usual := newLayout("/var/lib/k3m/agent", "/run/k3m")
	if usual.endpoint() != "unix:///run/k3m/containerd/containerd.sock" || usual.shimSockets != "/run/k3m/containerd/s" {
		t.Errorf("layout %+v", usual)
	}
	long := newLayout("/data/agent", "/run/a-directory-with-quite-a-long-name")
	other := newLayout("/data/agent", "/run/a-directory-with-quite-a-long-nam2")
	if len(long.shimSockets) > maxSocketDir || long.shimSockets == other.shimSockets {
		t.Errorf("shim sockets in %s and %s", long.shimSockets, other.shimSockets)
	}
	tooLong := newLayout("/data/agent", "/run/"+strings.Repeat("x", 100))
	if err := tooLong.validate(); err == nil || !strings.Contains(err.Error(), "choose a shorter --run-dir") {
		t.Errorf("error %v", err)
	}
}

func TestFullName(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"a full name", "registry.test/app:1", "registry.test/app:1"},
		{"a registry with a port", "localhost:5000/app:1", "localhost:5000/app:1"},
		{"a short name is Docker's", "busybox:1.36", "docker.io/library/busybox:1.36"},
		{"no tag is latest", "team/app", "docker.io/team/app:latest"},
		{"a bare tag names nothing", "latest", ""},
		{"no reference at all", "no name:1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := archive.FullName(c.in); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzFullName(f *testing.F) {
	for _, seed := range []string{"registry.test/app:1", "app@sha256:0", "latest", "a/b/c", ":", "@"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if name := archive.FullName(in); name != "" && archive.FullName(name) != name {
			t.Errorf("%q is %q, which is %q", in, name, archive.FullName(name))
		}
	})
}

func FuzzParseAttachment(f *testing.F) {
	f.Add([]byte(`{"kind":"cniCacheV1","containerId":"x","config":"e30=","ifName":"eth0","netns":"/run/x"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if a, ok := parseAttachment(raw); ok && a.NetNS == "" {
			t.Errorf("an attachment to nothing: %+v", a)
		}
	})
}

func TestLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "imported.json")
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.record("a.tar", info, "abc", []string{"x:1"}); err != nil {
		t.Fatal(err)
	}
	if l, err = openLedger(path); err != nil {
		t.Fatal(err)
	}
	_, a := l.unchanged("a.tar", info)
	if _, b := l.unchanged("b.tar", info); !a || b {
		t.Error("it does not know which file was imported")
	}
	if twin, ok := l.twin("abc"); !ok || twin.Images[0] != "x:1" || !l.hasSize(7) || l.hasSize(8) {
		t.Errorf("twin %+v, %v", twin, ok)
	}
	if err := os.WriteFile(path, []byte("{no json"), 0o644); err != nil {
		t.Fatal(err)
	}
	if l, err = openLedger(path); err == nil || len(l.files) != 0 {
		t.Errorf("a broken ledger: %v, %v", l.files, err)
	}
	if err := l.record("a.tar", info, "abc", nil); err != nil {
		t.Errorf("a broken ledger can't be mended: %v", err)
	}
}

func TestLogKeepsLevels(t *testing.T) {
	var out bytes.Buffer
	logger := hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug})
	if err := logThrough(logger); err != nil {
		t.Fatal(err)
	}
	logrus.WithField("id", "x").WithError(os.ErrNotExist).Warn("from containerd")
	logrus.Debug("in detail")
	for _, want := range []string{"[WARN]  from containerd: error=\"file does not exist\" id=x", "[DEBUG] in detail"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, &out)
		}
	}
}

func TestLogDemotesChatter(t *testing.T) {
	for _, c := range []struct{ name, message, want string }{
		{"a network that comes later", "failed to load cni during init, please check CRI plugin status", "[DEBUG] failed to load cni during init, please check CRI plugin status"},
		{"a warning", "skip loading plugin", "[WARN]  skip loading plugin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := logThrough(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug})); err != nil {
				t.Fatal(err)
			}
			logrus.WithField("id", "x").Warn(c.message)
			if !strings.Contains(out.String(), c.want+": id=x") {
				t.Errorf("it logged %q, want %q", &out, c.want)
			}
		})
	}
	t.Run("information is for those who debug", func(t *testing.T) {
		var out bytes.Buffer
		if err := logThrough(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info})); err != nil {
			t.Fatal(err)
		}
		if logrus.Info("loading plugin"); out.Len() > 0 {
			t.Errorf("it logged %q", &out)
		}
	})
}

func TestSize(t *testing.T) {
	for in, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_999: "1.0 MB", 1_510_000_000: "1.5 GB"} {
		if got := size(in); got != want {
			t.Errorf("size(%d) = %q, want %q", in, got, want)
		}
	}
}

func TestPrintImages(t *testing.T) {
	found := []image{
		{Name: "registry.k3m.io/pause", Tag: "1", ID: "sha256:0123456789abcdef", Size: 640, Pinned: true},
		{ID: "sha256:fedcba9876543210", Size: 2_500_000},
	}
	for format, want := range map[string]string{
		"table": "NAME                    TAG   IMAGE ID       SIZE     PINNED\n" +
			"registry.k3m.io/pause   1     0123456789ab   640 B    true\n" +
			"-                       -     fedcba987654   2.5 MB   false\n",
		"yaml": "- id: sha256:0123456789abcdef\n  name: registry.k3m.io/pause\n  pinned: true\n  size: 640\n  tag: \"1\"\n" +
			"- id: sha256:fedcba9876543210\n  name: \"\"\n  pinned: false\n  size: 2500000\n  tag: \"\"\n",
	} {
		var out bytes.Buffer
		if err := printImages(&out, format, found); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%s:\n%swant:\n%s", format, &out, want)
		}
	}
}

func TestArchiveIsReproducible(t *testing.T) {
	img := tinyImage("registry.test/x:1")
	img.Files["/usr/local/bin/y"] = []byte("y")
	img.Links = map[string]string{"/bin/z": "x", "/etc/z": "y"}
	var first bytes.Buffer
	if err := ociarchive.Write(&first, img); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		var again bytes.Buffer
		if err := ociarchive.Write(&again, img); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), again.Bytes()) {
			t.Fatal("two archives of one image differ")
		}
	}
	if err := ociarchive.Write(&first, ociarchive.Image{Name: "localhost:5000/no-tag"}); err == nil {
		t.Error("a name without a tag was taken")
	}
}
