// Command mkimage makes the sandbox image out of the pause executable:
//
//	go run ./plugins/runtime/containerd/pause/mkimage -in build/pause -out images/pause.tar
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/k3m-io/k3m/plugins/runtime/containerd/pause/ociarchive"
)

func main() {
	in := flag.String("in", "", "the pause executable")
	out := flag.String("out", "", "the archive to write")
	name := flag.String("name", "registry.k3m.io/pause:1", "the image's reference")
	arch := flag.String("arch", runtime.GOARCH, "the architecture that the executable is for")
	variant := flag.String("variant", "", "the variant of the architecture: v7 for arm")
	flag.Parse()
	if err := run(*in, *out, *name, ocispec.Platform{OS: "linux", Architecture: *arch, Variant: *variant}); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(in, out, name string, platform ocispec.Platform) error {
	bin, err := os.ReadFile(in)
	if err != nil {
		return fmt.Errorf("read the executable: %w", err)
	}
	f, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("create the archive: %w", err)
	}
	err = ociarchive.Write(f, ociarchive.Image{
		Name:     name,
		Platform: platform,
		// The kernel lets any user's process be a namespace's init: no need for root.
		Config: ocispec.ImageConfig{User: "65535:65535", Entrypoint: []string{"/pause"}},
		Files:  map[string][]byte{"/pause": bin},
	})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
