// Package ociarchive writes small one-layer images as OCI archives, the same bytes for
// the same input. The sandbox (pause) image of k3m is made with it.
package ociarchive

import (
	"archive/tar"
	"bytes"
	_ "crypto/sha256" // the digest package looks hash functions up by name
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageNameAnnotation is where containerd looks for the full name of an image; the OCI
// annotation beside it holds the tag only.
const imageNameAnnotation = "io.containerd.image.name"

// Image describes an image of one layer.
type Image struct {
	// Name is the full reference with a tag: "registry.k3m.io/pause:1".
	Name string
	// Platform is what it runs on; OS and Architecture must be given.
	Platform ocispec.Platform
	// Config is what a container of it runs.
	Config ocispec.ImageConfig
	// Files are the executables in it, by absolute path. Their directories are made.
	Files map[string][]byte
	// Links are symbolic links in it: path to target.
	Links map[string]string
}

// Write writes img to w as an OCI archive: an uncompressed tar file of an OCI image
// layout. All times in it are the epoch.
func Write(w io.Writer, img Image) error {
	colon := strings.LastIndexByte(img.Name, ':')
	if colon <= strings.LastIndexByte(img.Name, '/') {
		return fmt.Errorf("write image %q: the name needs a tag", img.Name)
	}
	tag := img.Name[colon+1:]
	layer, err := layerTar(img)
	if err != nil {
		return fmt.Errorf("write image %s: %w", img.Name, err)
	}
	a := archive{tw: tar.NewWriter(w)}
	layerDesc := a.blob(ocispec.MediaTypeImageLayer, layer)
	configDesc := a.json(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: img.Platform,
		Config:   img.Config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layerDesc.Digest}},
	})
	manifest := a.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    configDesc,
		Layers:    []ocispec.Descriptor{layerDesc},
	})
	manifest.Platform = &img.Platform
	manifest.Annotations = map[string]string{imageNameAnnotation: img.Name, ocispec.AnnotationRefName: tag}
	a.file(ocispec.ImageIndexFile, marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{manifest},
	}))
	a.file(ocispec.ImageLayoutFile, marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}))
	if a.err == nil {
		a.err = a.tw.Close()
	}
	if a.err != nil {
		return fmt.Errorf("write image %s: %w", img.Name, a.err)
	}
	return nil
}

// archive keeps the first error, so that callers can check once.
type archive struct {
	tw  *tar.Writer
	err error
}

func (a *archive) file(name string, data []byte) {
	if a.err == nil {
		a.err = addFile(a.tw, name, 0o644, data)
	}
}

func (a *archive) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	a.file(path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()), data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (a *archive) json(mediaType string, v any) ocispec.Descriptor {
	return a.blob(mediaType, marshal(v))
}

// marshal encodes the spec's plain structs, which can't fail.
func marshal(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func layerTar(img Image) ([]byte, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	entries := map[string]func(name string) error{}
	for p, data := range img.Files {
		entries[p] = func(name string) error { return addFile(tw, name, 0o755, data) }
	}
	for p, target := range img.Links {
		entries[p] = func(name string) error {
			return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777})
		}
	}
	for _, p := range slices.Collect(maps.Keys(entries)) {
		if !path.IsAbs(p) || path.Clean(p) != p {
			return nil, fmt.Errorf("file %q: the path must be absolute and clean", p)
		}
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			entries[dir] = func(name string) error {
				return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(entries)) {
		if err := entries[p](strings.TrimPrefix(p, "/")); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func addFile(tw *tar.Writer, name string, mode int64, data []byte) error {
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: mode}); err != nil {
		return err
	}
	_, err := tw.Write(data)
	return err
}
