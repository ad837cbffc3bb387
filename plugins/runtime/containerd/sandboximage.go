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

	"github.com/k3m-io/k3m/plugins/runtime/containerd/archive"
)

// pinnedLabel is what CRI puts on the images of its setting pinned_images, which the
// kubelet then doesn't remove to make room.
const (
	pinnedLabel = "io.cri-containerd.pinned"
	pinnedValue = "pinned"

	// carriedLabel marks the sandbox image that k3m carries, whose names nobody else may give.
	carriedLabel = "io.k3m.carried"
	// preloadedLabel marks images that came from an archive in the directory.
	preloadedLabel = "io.k3m.preloaded"
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

// carried tells whether k3m carries it. One that the operator chose is an image as others are:
// CRI pulls it, or an archive brings it; it is pinned all the same.
func (i sandboxImage) carried() bool { return i.file != "" }

// errNotCarried says that the carried archive holds no image of the wanted name.
var errNotCarried = errors.New("it does not hold")

// chooseSandboxImage is the carried one if it has the name, else the operator's.
func chooseSandboxImage(file, name string) (sandboxImage, error) {
	carried, err := openSandboxImage(file, name)
	if errors.Is(err, errNotCarried) {
		return sandboxImage{name: name, pinned: name}, nil
	}
	return carried, err
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
		if archive.Name(m) != name {
			continue
		}
		byDigest, err := reference.WithDigest(reference.TrimNamed(named), m.Digest)
		if err != nil {
			return sandboxImage{}, fmt.Errorf("read the sandbox image %s: %w", file, err)
		}
		return sandboxImage{file: file, name: name, digest: m.Digest, pinned: byDigest.String()}, nil
	}
	return sandboxImage{}, fmt.Errorf("read the sandbox image %s: %w %s", file, errNotCarried, name)
}

// readIndex reads the index of a plain OCI archive.
func readIndex(stream io.Reader) (ocispec.Index, error) {
	var index ocispec.Index
	files := tar.NewReader(stream)
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

// loadSandboxImage makes sure that the sandbox image is there, if it is the carried one. It
// is called before anybody can ask for a sandbox; none starts without. What an earlier
// distribution carried, or the operator chose earlier, is not pinned any more.
func loadSandboxImage(ctx context.Context, images store, wanted sandboxImage) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	if wanted.carried() && (!images.carries(ctx, wanted.name, wanted.digest) || !images.carries(ctx, wanted.pinned, wanted.digest)) {
		f, err := os.Open(wanted.file)
		if err != nil {
			return fmt.Errorf("open the sandbox image: %w", err)
		}
		defer f.Close()
		images.labels = map[string]string{carriedLabel: "true"}
		images.alias = map[string]string{wanted.name: wanted.pinned}
		if _, err := images.load(ctx, f); err != nil {
			return fmt.Errorf("load the sandbox image %s: %w", wanted.file, err)
		}
	}
	if err := images.removeSandboxImagesBut(ctx, wanted); err != nil {
		return fmt.Errorf("remove what is pinned in place of the sandbox image: %w", err)
	}
	return nil
}

// carries tells whether a name is that of the carried image.
func (s store) carries(ctx context.Context, name string, want digest.Digest) bool {
	img, err := s.client.ImageService().Get(ctx, name)
	return err == nil && img.Target.Digest == want && img.Labels[carriedLabel] != ""
}

// removeSandboxImagesBut removes the names of earlier sandbox images: those that are pinned,
// but for those that archives brought.
func (s store) removeSandboxImagesBut(ctx context.Context, wanted sandboxImage) error {
	pinned, err := s.client.ImageService().List(ctx, fmt.Sprintf("labels.%q==%s", pinnedLabel, pinnedValue))
	if err != nil {
		return err
	}
	for _, img := range pinned {
		keep := img.Labels[preloadedLabel] != "" || img.Target.Digest == wanted.digest
		if !wanted.carried() {
			keep = img.Labels[preloadedLabel] != "" || img.Name == wanted.name
		}
		if keep {
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
