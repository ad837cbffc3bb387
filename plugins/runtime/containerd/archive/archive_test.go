package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/k3m-io/k3m/plugins/runtime/containerd/pause/ociarchive"
)

// labels are those of a content store.
type labels map[digest.Digest]map[string]string

func (l labels) Get(d digest.Digest) (map[string]string, error) { return l[d], nil }

func (l labels) Set(d digest.Digest, all map[string]string) error {
	l[d] = all
	return nil
}

func (l labels) Update(d digest.Digest, changed map[string]string) (map[string]string, error) {
	all := maps.Clone(l[d])
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, changed)
	l[d] = all
	return all, nil
}

// FuzzArchive reads what may be an archive, into a content store of its own.
func FuzzArchive(f *testing.F) {
	var oci, docker bytes.Buffer
	platform := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	err := ociarchive.Write(&oci, ociarchive.Image{Name: "registry.test/fuzz:1", Platform: platform, Files: map[string][]byte{"/bin/x": []byte("x")}})
	if err != nil {
		f.Fatal(err)
	}
	w := tar.NewWriter(&docker)
	for name, text := range map[string]string{
		"layer.tar": strings.Repeat("\x00", 1024), "config.json": `{"os":"linux","rootfs":{"type":"layers"}}`,
		"manifest.json": `[{"Config":"config.json","RepoTags":["fuzz:1"],"Layers":["layer.tar"]}]`,
	} {
		err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644})
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(docker.Bytes()); err != nil || z.Close() != nil {
		f.Fatal(err)
	}
	for _, archive := range [][]byte{oci.Bytes(), docker.Bytes(), packed.Bytes(), oci.Bytes()[:oci.Len()/2], packed.Bytes()[:100], nil} {
		f.Add(archive)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		ctx := namespaces.WithNamespace(context.Background(), "k8s.io")
		blobs, err := local.NewLabeledStore(t.TempDir(), labels{})
		if err != nil {
			t.Fatal(err)
		}
		plain, err := compression.DecompressStream(bytes.NewReader(raw))
		if err != nil {
			return
		}
		defer plain.Close()
		// What a few bytes are decompressed to can be without end.
		found, err := Read(ctx, blobs, io.LimitReader(plain, 1<<20))
		if err != nil {
			return
		}
		for _, img := range found {
			if FullName(img.Name) != img.Name {
				t.Errorf("the name %q is not full", img.Name)
			}
			if _, err := blobs.Info(ctx, img.Target.Digest); err != nil {
				t.Errorf("%s is named, but: %v", img.Name, err)
			}
		}
	})
}
