package bundle

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// distribution packs files behind a stand-in for the self-extractor.
func distribution(t *testing.T, files map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o600)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := Pack(&out, strings.NewReader("#!extractor"), dir, zstd.SpeedFastest); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func open(t *testing.T, content []byte) (*Payload, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "k3m")
	if err := os.WriteFile(name, content, 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := Open(name)
	if err == nil {
		t.Cleanup(func() { p.Close() })
	}
	return p, err
}

func TestUnpackGivesWhatWasPacked(t *testing.T) {
	p, err := open(t, distribution(t, map[string]string{"bin/k3m": "program", "plugins/catalog.json": "{}"}))
	if err != nil {
		t.Fatal(err)
	}
	parent := filepath.Join(t.TempDir(), "data")
	for _, time := range []string{"first", "second"} {
		dir, err := p.Unpack(parent)
		if err != nil {
			t.Fatalf("%s time: %v", time, err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "bin", "k3m"))
		if err != nil || string(text) != "program" {
			t.Errorf("%s time: bin/k3m holds %q, %v", time, text, err)
		}
		if info, err := os.Stat(filepath.Join(dir, "bin", "k3m")); err != nil || info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s time: bin/k3m can't be executed", time)
		}
	}
	entries, err := os.ReadDir(parent)
	if err != nil || len(entries) != 1 {
		t.Errorf("unpacking left %v, %v", entries, err)
	}
}

func TestPackIsReproducible(t *testing.T) {
	files := map[string]string{"bin/b": "2", "bin/a": "1", "cni/bridge": "3"}
	if !bytes.Equal(distribution(t, files), distribution(t, files)) {
		t.Error("the same files gave other bytes")
	}
}

func TestDamage(t *testing.T) {
	whole := distribution(t, map[string]string{"bin/k3m": strings.Repeat("program", 1000)})
	flipped := bytes.Clone(whole)
	flipped[len("#!extractor")+30] ^= 0xff
	endless := bytes.Clone(whole)
	endless[len(endless)-int(trailerSize)+8+6] = 0x7f // the length's high bytes
	for name, content := range map[string][]byte{
		"no payload":        []byte("#!extractor that carries nothing, but is long enough for a trailer of 48 bytes"),
		"short file":        []byte("#!"),
		"truncated":         whole[:len(whole)-10],
		"changed payload":   flipped,
		"impossible length": endless,
	} {
		t.Run(name, func(t *testing.T) {
			parent := filepath.Join(t.TempDir(), "data")
			p, err := open(t, content)
			if err == nil {
				_, err = p.Unpack(parent)
			}
			if err == nil {
				t.Fatal("it was accepted")
			}
			if entries, err := os.ReadDir(parent); err == nil && len(entries) > 0 {
				t.Errorf("it left %v", entries)
			}
		})
	}
}

func TestUntarStaysInItsDirectory(t *testing.T) {
	for name, header := range map[string]tar.Header{
		"parent":   {Typeflag: tar.TypeReg, Name: "../escaped", Mode: 0o644},
		"absolute": {Typeflag: tar.TypeReg, Name: "/escaped", Mode: 0o644},
		"link":     {Typeflag: tar.TypeSymlink, Name: "link", Linkname: "/"},
	} {
		t.Run(name, func(t *testing.T) {
			var archive bytes.Buffer
			z, err := zstd.NewWriter(&archive)
			if err != nil {
				t.Fatal(err)
			}
			w := tar.NewWriter(z)
			if err := errors.Join(w.WriteHeader(&header), w.Close(), z.Close()); err != nil {
				t.Fatal(err)
			}
			if err := untar(&archive, t.TempDir()); err == nil {
				t.Error("it was accepted")
			}
		})
	}
}

func TestPrune(t *testing.T) {
	parent := t.TempDir()
	current, older := strings.Repeat("c", 32), strings.Repeat("0", 32)
	for _, name := range []string{current, older, "somebody's", scratchPrefix + "running", scratchPrefix + "dead"} {
		if err := os.Mkdir(filepath.Join(parent, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * unpackPatience)
	if err := os.Chtimes(filepath.Join(parent, scratchPrefix+"dead"), long, long); err != nil {
		t.Fatal(err)
	}
	if err := Prune(parent, filepath.Join(t.TempDir(), "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if err := Prune(parent, filepath.Join(parent, current)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got, want := strings.Join(left, " "), scratchPrefix+"running "+current+" somebody's"; got != want {
		t.Errorf("left are %q, want %q", got, want)
	}
}

func TestUnpackRefusesATrap(t *testing.T) {
	p, err := open(t, distribution(t, map[string]string{"bin/k3m": "program"}))
	if err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]func(parent string) error{
		"directory that others can write": func(parent string) error { return os.Chmod(parent, 0o777) },
		"file that others can write": func(parent string) error {
			return os.Chmod(filepath.Join(parent, p.Digest(), "bin", "k3m"), 0o777)
		},
		"link in the name's place": func(parent string) error {
			dir := filepath.Join(parent, p.Digest())
			return errors.Join(os.Rename(dir, dir+"-elsewhere"), os.Symlink(dir+"-elsewhere", dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			parent := filepath.Join(t.TempDir(), "data")
			if _, err := p.Unpack(parent); err != nil {
				t.Fatal(err)
			}
			if err := set(parent); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Unpack(parent); err == nil {
				t.Error("it was accepted")
			}
		})
	}
}

// FuzzFind holds that no trailer leads outside the file.
func FuzzFind(f *testing.F) {
	f.Add([]byte("K3MBNDL1\xff\xff\xff\xff\xff\xff\xff\x7f" + strings.Repeat("d", 32)))
	f.Fuzz(func(t *testing.T, content []byte) {
		name := filepath.Join(t.TempDir(), "k3m")
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := Open(name)
		if err != nil {
			return
		}
		defer p.Close()
		if p.start < 0 || p.length <= 0 || p.start+p.length > int64(len(content)) {
			t.Errorf("payload at %d, %d bytes, in a file of %d", p.start, p.length, len(content))
		}
	})
}
