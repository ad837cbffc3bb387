// Package archive reads image archives into containerd's content store.
package archive

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Read stores the content of an archive, in the OCI or the docker format and not compressed, and
// returns the images in it that have names. The content is tied to nothing yet.
func Read(ctx context.Context, blobs content.Store, plain io.Reader) ([]images.Image, error) {
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
		name := Name(m)
		if name == "" {
			continue
		}
		found = append(found, images.Image{Name: name, Target: m})
	}
	return found, nil
}

// Name is the full name that an archive gives to one of its images, or "".
func Name(m ocispec.Descriptor) string {
	return FullName(cmp.Or(m.Annotations[images.AnnotationImageName], m.Annotations[ocispec.AnnotationRefName]))
}

// FullName makes the reference that CRI will ask for out of the name in an archive. A
// bare tag names nothing.
func FullName(name string) string {
	if !strings.ContainsAny(name, "/:@") {
		return ""
	}
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return ""
	}
	return named.String()
}
