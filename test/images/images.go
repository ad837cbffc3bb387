package images

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The references of the images. No registry has that name: what is not preloaded fails.
const (
	// Echo is the program in ./echo, with VERSION=1 in its environment; Echo2 has VERSION=2.
	Echo  = "registry.k3m.test/echo:1"
	Echo2 = "registry.k3m.test/echo:2"
	// Busybox is Debian's static busybox.
	Busybox = "registry.k3m.test/busybox:1"
)

// Build writes the archives into dir: busybox.tar (docker form) and echo.tar (OCI form).
// source is this package's folder.
func Build(ctx context.Context, dir, source string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := BuildBusybox(ctx, filepath.Join(dir, "busybox.tar"), Busybox); err != nil {
		return err
	}
	if err := buildEcho(ctx, dir, source); err != nil {
		return fmt.Errorf("build the echo image: %w", err)
	}
	return nil
}

// BuildBusybox writes an archive (docker form) of the busybox image with a reference.
func BuildBusybox(ctx context.Context, archive, reference string) error {
	binary, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("build the busybox image: %w: install busybox-static", err)
	}
	applets, err := exec.CommandContext(ctx, "/bin/busybox", "--list").Output()
	if err != nil {
		return err
	}
	files := []file{{name: "bin/busybox", body: binary, mode: 0o755}, {name: "tmp/", mode: 0o1777}, {name: "root/", mode: 0o700},
		{name: "etc/passwd", body: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"), mode: 0o644}}
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			files = append(files, file{name: "bin/" + applet, link: "busybox"})
		}
	}
	img, err := image(files, v1.Config{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}})
	if err != nil {
		return err
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(archive, tag, img)
}

func buildEcho(ctx context.Context, dir, source string) error {
	exe := filepath.Join(dir, "echo")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", exe, ".")
	cmd.Dir = filepath.Join(source, "echo")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	defer os.Remove(exe)
	binary, err := os.ReadFile(exe)
	if err != nil {
		return err
	}
	oci := filepath.Join(dir, "echo.oci")
	defer os.RemoveAll(oci)
	path, err := layout.Write(oci, empty.Index)
	if err != nil {
		return err
	}
	for version, ref := range map[string]string{"1": Echo, "2": Echo2} {
		img, err := image([]file{{name: "echo", body: binary, mode: 0o755}, {name: "tmp/", mode: 0o1777}},
			v1.Config{Entrypoint: []string{"/echo"}, Env: []string{"VERSION=" + version}})
		if err != nil {
			return err
		}
		names := map[string]string{"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": version}
		if err := path.AppendImage(img, layout.WithAnnotations(names)); err != nil {
			return err
		}
	}
	return archiveFolder(oci, filepath.Join(dir, "echo.tar"))
}

// file is an entry of an image's only layer: a folder (its name ends in a slash), a
// link, or a file.
type file struct {
	name string
	body []byte
	link string
	mode int64
}

func image(files []file, config v1.Config) (v1.Image, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Typeflag: tar.TypeReg}
		switch {
		case f.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	full, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	full = full.DeepCopy()
	full.OS, full.Architecture, full.Config = "linux", runtime.GOARCH, config
	return mutate.ConfigFile(img, full)
}

func archiveFolder(dir, archive string) error {
	out, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: rel, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err = w.Write(body)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Close()
}
