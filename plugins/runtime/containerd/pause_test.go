package containerd

import (
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/k3m-io/k3m/plugins/runtime/containerd/pause/ociarchive"
)

const goarch = goruntime.GOARCH

// pauseExecutable compiles pause.c as the Makefile does.
func pauseExecutable(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "pause")
	build, err := exec.Command("sh", "pause/build.sh", "gcc", out).CombinedOutput()
	if err != nil {
		t.Fatalf("build pause: %v\n%s", err, build)
	}
	return out
}

func pauseImage(t *testing.T) ociarchive.Image {
	t.Helper()
	bin, err := os.ReadFile(pauseExecutable(t))
	if err != nil {
		t.Fatal(err)
	}
	return ociarchive.Image{
		Name:     testPause,
		Platform: platform(),
		Config:   ocispec.ImageConfig{User: "65535:65535", Entrypoint: []string{"/pause"}},
		Files:    map[string][]byte{"/pause": bin},
	}
}
