package containerd

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pinnedLabel is what CRI puts on the images of its setting pinned_images, by which
// those are told from others also by who doesn't know their names (k3m image import).
const (
	pinnedLabel = "io.cri-containerd.pinned"
	pinnedValue = "pinned"
)

// sandboxImage is the image of every pod's first process. k3m carries it; nobody else
// may give it, since what is in it runs in every pod.
type sandboxImage struct {
	file   string
	name   string
	digest digest.Digest
	// pinned names it by its digest. CRI is told this name: what a pull stores under it
	// is what k3m carries, while the tag may be pulled from wherever.
	pinned string
}

// openSandboxImage finds out the digest of the image that k3m carries in file.
func openSandboxImage(file, name string) (sandboxImage, error) {
	f, err := os.Open(file)
	if err != nil {
		return sandboxImage{}, fmt.Errorf("open the sandbox image: %w", err)
	}
	defer f.Close()
	index, err := readIndex(f)
	if err != nil {
		return sandboxImage{}, fmt.Errorf("read the sandbox image %s: %w", file, err)
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return sandboxImage{}, fmt.Errorf("read the name %q of the sandbox image: %w", name, err)
	}
	for _, m := range index.Manifests {
		if nameOf(m) != name {
			continue
		}
		byDigest, err := reference.WithDigest(reference.TrimNamed(named), m.Digest)
		if err != nil {
			return sandboxImage{}, fmt.Errorf("read the sandbox image %s: %w", file, err)
		}
		return sandboxImage{file: file, name: name, digest: m.Digest, pinned: byDigest.String()}, nil
	}
	return sandboxImage{}, fmt.Errorf("read the sandbox image %s: it does not hold %s", file, name)
}

// readIndex reads the index of a plain OCI archive.
func readIndex(archive io.Reader) (ocispec.Index, error) {
	var index ocispec.Index
	files := tar.NewReader(archive)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return index, errors.New("it has no " + ocispec.ImageIndexFile)
		}
		if err != nil {
			return index, err
		}
		if path.Clean(header.Name) == ocispec.ImageIndexFile {
			return index, json.NewDecoder(files).Decode(&index)
		}
	}
}

// loadSandboxImage makes sure that the sandbox image is there and is the carried one. It
// is called before anybody can ask for a sandbox; none starts without. What an earlier
// distribution carried is not pinned any more.
func loadSandboxImage(ctx context.Context, images store, carried sandboxImage) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	if images.digest(ctx, carried.name) != carried.digest || images.digest(ctx, carried.pinned) != carried.digest {
		f, err := os.Open(carried.file)
		if err != nil {
			return fmt.Errorf("open the sandbox image: %w", err)
		}
		defer f.Close()
		images.replacesPinned = true
		images.alias = map[string]string{carried.name: carried.pinned}
		if _, err := images.load(ctx, f); err != nil {
			return fmt.Errorf("load the sandbox image %s: %w", carried.file, err)
		}
	}
	if err := images.removePinnedBut(ctx, carried.digest); err != nil {
		return fmt.Errorf("remove what is pinned in place of the sandbox image: %w", err)
	}
	return nil
}

// removePinnedBut removes the pinned names of other images than that of the digest.
func (s store) removePinnedBut(ctx context.Context, keep digest.Digest) error {
	pinned, err := s.client.ImageService().List(ctx, fmt.Sprintf("labels.%q==%s", pinnedLabel, pinnedValue))
	if err != nil {
		return err
	}
	for _, img := range pinned {
		if img.Target.Digest == keep {
			continue
		}
		if err := s.client.ImageService().Delete(ctx, img.Name); err != nil {
			return err
		}
		if err := s.tell(ctx, img.Name); err != nil {
			return err
		}
	}
	return nil
}
