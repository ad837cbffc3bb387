package containerd

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/k3m-io/k3m/plugins/runtime/containerd/pause/ociarchive"
)

// TestLargeArchive starts a node that has two gigabytes to import, and stops it meanwhile.
func TestLargeArchive(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(n.facts.Paths.ImagesDir, "large.tar.zst")
	largeArchive(t, file, "registry.test/large:1")
	n.start()
	// It can't be unpacked, which would be logged by now if the node waited for it.
	if strings.Contains(n.log.String(), "large.tar.zst") {
		t.Error("the node was ready only after the import")
	}
	n.stop()
	if strings.Contains(n.log.String(), "large.tar.zst") {
		t.Errorf("the end of the node was taken for the archive's mistake")
	}
	if err := os.WriteFile(file, zstded(t, archiveOf(t, "registry.test/small:1")), 0o644); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.waitImage("registry.test/small:1")
	if n.has(t, "registry.test/large:1") {
		t.Error("half of an archive was imported")
	}
}

// largeArchive writes an archive of two gigabytes, which compressed are few. The digest of its
// layer is wrong.
func largeArchive(t *testing.T, file, name string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer closeWriter(t, f)
	packed, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	defer closeWriter(t, packed)
	const size = 2 << 30
	w := tar.NewWriter(packed)
	defer closeWriter(t, w)
	if err := w.WriteHeader(&tar.Header{Name: "layer.tar", Size: size, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range size / len(zeros) {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	writeTar(t, w, "config.json", marshal(t, ocispec.Image{Platform: platform(),
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("another")}}}))
	writeTar(t, w, "manifest.json", marshal(t, []map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}}))
}

func tinyImage(name string) ociarchive.Image {
	return ociarchive.Image{Name: name, Platform: platform(), Files: map[string][]byte{"/bin/x": []byte(name)}}
}

func archiveOf(t testing.TB, name string) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := ociarchive.Write(&buf, tinyImage(name)); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// dockerArchive is what docker save wrote before version 25.
func dockerArchive(t testing.TB, name string) []byte {
	t.Helper()
	return dockerArchiveOf(t, name, nil)
}

// dockerArchiveOf makes an archive that can't be unpacked if the digest of its layer is
// given, and wrong.
func dockerArchiveOf(t testing.TB, name string, diffIDs []digest.Digest) []byte {
	t.Helper()
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	writeTar(t, tw, "bin/x", []byte(name))
	closeWriter(t, tw)
	if diffIDs == nil {
		diffIDs = digests(layer.Bytes())
	}
	var out bytes.Buffer
	tw = tar.NewWriter(&out)
	writeTar(t, tw, "config.json", marshal(t, ocispec.Image{Platform: platform(), RootFS: ocispec.RootFS{Type: "layers", DiffIDs: diffIDs}}))
	writeTar(t, tw, "layer.tar", layer.Bytes())
	writeTar(t, tw, "manifest.json", marshal(t, []map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}}))
	closeWriter(t, tw)
	return out.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	closeWriter(t, w)
	return buf.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// closeWriter writes what a writer holds back.
func closeWriter(t testing.TB, w io.Closer) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func writeTar(t testing.TB, w *tar.Writer, name string, data []byte) {
	t.Helper()
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
