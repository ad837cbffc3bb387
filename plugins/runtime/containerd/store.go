package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"github.com/k3m-io/k3m/plugins/runtime/containerd/archive"
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
	// labels are given to all images that are named. Archives may give the names of the
	// carried image only if carriedLabel is among them.
	labels map[string]string
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

	found, err := archive.Read(ctx, s.client.ContentStore(), plain)
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	if len(found) == 0 {
		return nil, errNoImages
	}
	found = s.withAliases(found)
	if err := s.checkCarried(ctx, found); err != nil {
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

// withAliases adds the second names.
func (s store) withAliases(found []images.Image) []images.Image {
	for _, img := range found {
		if other := s.alias[img.Name]; other != "" {
			found = append(found, images.Image{Name: other, Target: img.Target})
		}
	}
	return found
}

// checkCarried refuses images that would take the name of the carried one, which is the
// node's own: the sandbox image.
func (s store) checkCarried(ctx context.Context, found []images.Image) error {
	if s.labels[carriedLabel] != "" {
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
		if old.Labels[carriedLabel] != "" && old.Target.Digest != img.Target.Digest {
			return fmt.Errorf("nothing is imported since the archive names another image %s, which is the node's own sandbox image: "+
				"save it without that image", img.Name)
		}
	}
	return nil
}

// name makes img known, in place of the image that had its name, with the store's labels.
func (s store) name(ctx context.Context, img images.Image) error {
	all := s.client.ImageService()
	img.Labels = s.labels
	old, err := all.Get(ctx, img.Name)
	switch {
	case errdefs.IsNotFound(err):
		_, err = all.Create(ctx, img)
	case err == nil && old.Target.Digest != img.Target.Digest:
		// Without CRI's labels it is taken for a new image, and its ID made known too.
		_, err = all.Update(ctx, img, "target", "labels")
	case err == nil && len(s.labels) > 0:
		var fields []string
		for key := range s.labels {
			fields = append(fields, "labels."+key)
		}
		_, err = all.Update(ctx, img, fields...)
	}
	if err != nil {
		return err
	}
	return s.tell(ctx, img.Name)
}

// pin pins those of the images from archives that are wanted, and no others.
func (s store) pin(ctx context.Context, wanted func(name string) bool) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	all := s.client.ImageService()
	found, err := all.List(ctx, fmt.Sprintf("labels.%q", preloadedLabel))
	if err != nil {
		return fmt.Errorf("list the images of archives: %w", err)
	}
	for _, img := range found {
		label := ""
		if wanted(img.Name) {
			label = pinnedValue
		}
		if img.Labels[pinnedLabel] == label {
			continue
		}
		img.Labels = map[string]string{pinnedLabel: label}
		_, err := all.Update(ctx, img, "labels."+pinnedLabel)
		if err == nil {
			err = s.tell(ctx, img.Name)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("pin or unpin %s: %w", img.Name, err)
		}
	}
	return nil
}

// holds tells whether all the names are known.
func (s store) holds(ctx context.Context, names []string) bool {
	ctx = namespaces.WithNamespace(ctx, namespace)
	return !slices.ContainsFunc(names, func(name string) bool { return s.digest(ctx, name) == "" })
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
