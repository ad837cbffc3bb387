package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	upstream "k8s.io/kubernetes/test/utils/image"

	"github.com/k3m-io/k3m/test/images"
)

func runtimeVersion() string { return runtime.Version() + " " + runtime.GOARCH }

// imagesDir holds the archives; all of them are preloaded.
func (s *suite) imagesDir() string { return filepath.Join(s.out, "images") }

// reference is the name and version that the tests of this Kubernetes ask for.
func reference(id upstream.ImageID) string { return upstream.GetE2EImage(id) }

// buildImages makes the archives.
func (s *suite) buildImages(ctx context.Context) error {
	if err := os.MkdirAll(s.imagesDir(), 0o755); err != nil {
		return err
	}
	busybox := filepath.Join(s.imagesDir(), "busybox.tar")
	err := s.cached(busybox, []string{reference(upstream.BusyBox)}, []string{"/bin/busybox"}, func() error {
		return images.BuildBusybox(ctx, busybox, reference(upstream.BusyBox))
	})
	if err != nil {
		return fmt.Errorf("make the busybox image: %w", err)
	}
	archive := filepath.Join(s.imagesDir(), "suite.tar")
	words := []string{reference(upstream.Agnhost), reference(upstream.AgnhostPrev), reference(upstream.GlibcDnsTesting), reference(upstream.Nginx),
		reference(upstream.NginxNew), reference(upstream.DistrolessIptables), reference(upstream.RegressionIssue74839), reference(upstream.Pause)}
	inputs := []string{s.rootTar() + ".key", s.bin("agnhost"), s.bin("coredns"), s.bin("regression-issue-74839"), s.bin("pause"),
		filepath.Join(s.source, "images.go")}
	err = s.cached(archive, words, inputs, func() error { return s.writeSuite(ctx, archive) })
	if err != nil {
		return fmt.Errorf("make the images of the suite: %w", err)
	}
	return nil
}

// writeSuite writes one archive with all images but busybox, so that the layer that they share is in it once.
func (s *suite) writeSuite(ctx context.Context, archive string) error {
	root, err := tarball.LayerFromFile(s.rootTar())
	if err != nil {
		return err
	}
	porter, err := s.porter(ctx)
	if err != nil {
		return err
	}
	agnhost, err := s.image(v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}, []v1.Layer{root}, []entry{
		{name: "agnhost", file: s.bin("agnhost"), mode: 0o755}, {name: "agnhost-2", link: "agnhost"}, {name: "uploads/", mode: 0o755},
		{name: "coredns", file: s.bin("coredns"), mode: 0o755},
		{name: "localhost.crt", file: filepath.Join(porter, "localhost.crt"), mode: 0o644},
		{name: "localhost.key", file: filepath.Join(porter, "localhost.key"), mode: 0o644},
	})
	if err != nil {
		return err
	}
	dns, err := s.image(v1.Config{Cmd: []string{"bash"}}, []v1.Layer{root}, []entry{{name: "coredns", file: s.bin("coredns"), mode: 0o755}})
	if err != nil {
		return err
	}
	plain, err := s.image(v1.Config{Cmd: []string{"bash"}}, []v1.Layer{root}, nil)
	if err != nil {
		return err
	}
	nginx, err := s.image(v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}}, []v1.Layer{root}, nil)
	if err != nil {
		return err
	}
	issue, err := s.image(v1.Config{Entrypoint: []string{"/regression-issue-74839"}}, nil,
		[]entry{{name: "regression-issue-74839", file: s.bin("regression-issue-74839"), mode: 0o755}})
	if err != nil {
		return err
	}
	pause, err := s.image(v1.Config{User: "65535:65535", Entrypoint: []string{"/pause"}}, nil, []entry{{name: "pause", file: s.bin("pause"), mode: 0o755}})
	if err != nil {
		return err
	}
	all := map[name.Tag]v1.Image{}
	for id, img := range map[upstream.ImageID]v1.Image{
		upstream.Agnhost: agnhost, upstream.AgnhostPrev: agnhost, upstream.GlibcDnsTesting: dns, upstream.DistrolessIptables: plain,
		upstream.Nginx: nginx, upstream.NginxNew: nginx, upstream.RegressionIssue74839: issue, upstream.Pause: pause,
	} {
		tag, err := name.NewTag(reference(id))
		if err != nil {
			return err
		}
		all[tag] = img
	}
	return tarball.MultiWriteToFile(archive, all)
}

// porter is the folder with the certificate that agnhost's porter serves with.
func (s *suite) porter(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "k8s.io/kubernetes/test/images/agnhost/porter")
	cmd.Dir = filepath.Join(s.source, "suite")
	cmd.Env = append(os.Environ(), "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find agnhost's sources: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// buildPause builds the sandbox program that k3m carries, for tests that run it by its upstream name.
func (s *suite) buildPause(ctx context.Context) error {
	dir := filepath.Join(s.root, "plugins", "runtime", "containerd", "pause")
	files, err := filepath.Glob(filepath.Join(dir, "*.[cS]"))
	if err != nil {
		return err
	}
	return s.cached(s.bin("pause"), nil, append(files, filepath.Join(dir, "build.sh")), func() error {
		return command(ctx, s.root, nil, "sh", filepath.Join(dir, "build.sh"), "cc", s.bin("pause"))
	})
}

// entry is a file of an image's upper layer: a copy of a file, a link, or a folder (its name ends in a slash).
type entry struct {
	name, file, link string
	mode             int64
}

// image is an image of shared layers and, above them, entries.
func (s *suite) image(config v1.Config, layers []v1.Layer, entries []entry) (v1.Image, error) {
	if len(entries) > 0 {
		layer, err := layerOf(entries)
		if err != nil {
			return nil, err
		}
		layers = append(layers[:len(layers):len(layers)], layer)
	}
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, err
	}
	full, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	full = full.DeepCopy()
	config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	full.OS, full.Architecture, full.Config = "linux", runtime.GOARCH, config
	return mutate.ConfigFile(img, full)
}

func layerOf(entries []entry) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Typeflag: tar.TypeReg}
		var body []byte
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		default:
			var err error
			if body, err = os.ReadFile(e.file); err != nil {
				return nil, err
			}
			h.Size = int64(len(body))
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
}
