package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
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
}

// load reads one archive, in the OCI or the docker format, plain or compressed with gzip
// or zstd, unpacks what is for this platform, and returns the names of the images. On an
// error nothing is kept but content without an owner, which containerd collects.
func (s store) load(ctx context.Context, archive io.Reader) ([]string, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	stream, err := compression.DecompressStream(archive)
	if err != nil {
		return nil, fmt.Errorf("decompress the archive: %w", err)
	}
	defer hangUp(stream)
	// The lease keeps the layers between the import and the unpacking.
	ctx, done, err := s.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("take a lease: %w", err)
	}
	defer func() {
		// One that can't be given back ends by itself after a day.
		_ = done(context.WithoutCancel(ctx))
	}()

	imported, err := s.client.Import(ctx, stream, client.WithImageRefTranslator(fullName))
	if err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	if len(imported) == 0 {
		return nil, errNoImages
	}
	names := make([]string, 0, len(imported))
	for _, img := range imported {
		if err := s.unpack(ctx, img); err != nil {
			return nil, errors.Join(fmt.Errorf("unpack %s: %w", img.Name, err), s.forget(ctx, imported))
		}
		names = append(names, img.Name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (s store) unpack(ctx context.Context, img images.Image) error {
	image := client.NewImageWithPlatform(s.client, img, platforms.Default())
	if err := image.Unpack(ctx, s.snapshotter); err != nil {
		return err
	}
	if s.cri == nil {
		return nil
	}
	return s.cri.UpdateImage(ctx, img.Name)
}

// forget removes the names of images that can't be used.
func (s store) forget(ctx context.Context, broken []images.Image) error {
	var errs []error
	for _, img := range broken {
		if err := s.client.ImageService().Delete(ctx, img.Name); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", img.Name, err))
		}
	}
	return errors.Join(errs...)
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

// holds tells whether an image of that name is there.
func (s store) holds(ctx context.Context, name string) bool {
	_, err := s.client.ImageService().Get(namespaces.WithNamespace(ctx, namespace), name)
	return err == nil
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
