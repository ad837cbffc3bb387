package containerd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// errNoImages says that an archive holds nothing that can be named.
var errNoImages = errors.New(
	"no image in the archive has a name: save it by its name and tag (docker save NAME:TAG, skopeo copy … oci-archive:FILE:NAME:TAG)")

// store imports image archives into one containerd.
type store struct {
	client *client.Client
	// snapshotter unpacks the images; empty is the node's own, which is a label of the
	// namespace.
	snapshotter string
	// cri, when it is there, is told of new images at once.
	cri imageUpdater
	// replacesPinned lets archives give pinned names to other images: only the one that
	// k3m carries may.
	replacesPinned bool
	// alias is a second name for images of some names.
	alias map[string]string
}

// load reads one archive, in the OCI or the docker format, plain or compressed with gzip
// or zstd, unpacks what is for this platform, and returns the names of the images. Names
// are given when everything is unpacked: an archive that can't be used leaves them to the
// images that had them, and keeps nothing but content without an owner, which containerd
// collects.
func (s store) load(ctx context.Context, stream io.Reader) ([]string, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	plain, err := compression.DecompressStream(stream)
	if err != nil {
		return nil, fmt.Errorf("decompress the archive: %w", err)
	}
	defer hangUp(plain)
	// The lease keeps the content between the import and the naming.
	ctx, done, err := s.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("take a lease: %w", err)
	}
	defer func() {
		// One that can't be given back ends by itself after a day.
		_ = done(context.WithoutCancel(ctx))
	}()

	found, err := s.read(ctx, plain)
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	if len(found) == 0 {
		return nil, errNoImages
	}
	if err := s.checkPinned(ctx, found); err != nil {
		return nil, err
	}
	for _, img := range found {
		image := client.NewImageWithPlatform(s.client, img, platforms.Default())
		if err := image.Unpack(ctx, s.snapshotter); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", img.Name, err)
		}
	}
	names := make([]string, 0, len(found))
	for _, img := range found {
		if err := s.name(ctx, img); err != nil {
			return nil, fmt.Errorf("name %s: %w", img.Name, err)
		}
		names = append(names, img.Name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// read stores the content of an archive, and returns the images in it that have names.
func (s store) read(ctx context.Context, plain io.Reader) ([]images.Image, error) {
	blobs := s.client.ContentStore()
	desc, err := archive.ImportIndex(ctx, blobs, plain)
	if err != nil {
		return nil, err
	}
	// The labels tie each piece to what it is part of, so that it is kept as long.
	parts := images.SetChildrenLabels(blobs, images.FilterPlatforms(images.ChildrenHandler(blobs), platforms.Default()))
	if err := images.WalkNotEmpty(ctx, parts, desc); err != nil {
		return nil, err
	}
	raw, err := content.ReadBlob(ctx, blobs, desc)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, err
	}
	var found []images.Image
	for _, m := range index.Manifests {
		name := nameOf(m)
		if name == "" {
			continue
		}
		found = append(found, images.Image{Name: name, Target: m})
		if other := s.alias[name]; other != "" {
			found = append(found, images.Image{Name: other, Target: m})
		}
	}
	return found, nil
}

// nameOf is the full name that an archive gives to one of its images, or "".
func nameOf(m ocispec.Descriptor) string {
	return fullName(cmp.Or(m.Annotations[images.AnnotationImageName], m.Annotations[ocispec.AnnotationRefName]))
}

// checkPinned refuses images that would take the name of a pinned one, which is the
// node's own: the sandbox image.
func (s store) checkPinned(ctx context.Context, found []images.Image) error {
	if s.replacesPinned {
		return nil
	}
	for _, img := range found {
		old, err := s.client.ImageService().Get(ctx, img.Name)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look up %s: %w", img.Name, err)
		}
		if old.Labels[pinnedLabel] == pinnedValue && old.Target.Digest != img.Target.Digest {
			return fmt.Errorf("nothing is imported since the archive names another image %s, which is the node's own sandbox image: "+
				"save it without that image", img.Name)
		}
	}
	return nil
}

// name makes img known, in place of the image that had its name.
func (s store) name(ctx context.Context, img images.Image) error {
	all := s.client.ImageService()
	old, err := all.Get(ctx, img.Name)
	switch {
	case errdefs.IsNotFound(err):
		_, err = all.Create(ctx, img)
	case err == nil && old.Target.Digest != img.Target.Digest:
		// Without the labels CRI takes it for a new image, and makes its ID known too.
		_, err = all.Update(ctx, img, "target", "labels")
	}
	if err != nil {
		return err
	}
	return s.tell(ctx, img.Name)
}

// tell makes CRI look at a name.
func (s store) tell(ctx context.Context, name string) error {
	if s.cri == nil {
		return nil
	}
	return s.cri.UpdateImage(ctx, name)
}

// setDefaultSnapshotter labels the namespace, for clients that don't know the node's
// settings (k3m image import, ctr). Without a label they take overlayfs.
func (s store) setDefaultSnapshotter(ctx context.Context) error {
	all := s.client.NamespaceService()
	labels, err := all.Labels(ctx, namespace)
	if err == nil && labels[defaults.DefaultSnapshotterNSLabel] == "" && s.snapshotter == defaults.DefaultSnapshotter {
		return nil
	}
	if err == nil && labels[defaults.DefaultSnapshotterNSLabel] != s.snapshotter {
		err = all.SetLabel(ctx, namespace, defaults.DefaultSnapshotterNSLabel, s.snapshotter)
	}
	if err != nil {
		return fmt.Errorf("name the snapshotter to clients: %w", err)
	}
	return nil
}

// digest is that of the image of the name, or "" when there is none.
func (s store) digest(ctx context.Context, name string) digest.Digest {
	img, err := s.client.ImageService().Get(ctx, name)
	if err != nil {
		return ""
	}
	return img.Target.Digest
}

// fullName makes the reference that CRI will ask for out of the name in an archive. A
// bare tag names nothing.
func fullName(name string) string {
	if !strings.ContainsAny(name, "/:@") {
		return ""
	}
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return ""
	}
	return named.String()
}
