package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/k3m-io/k3m/test/harness"
)

var building sync.Mutex // go build uses both cores by itself

// goBuild builds a program in a folder of the repository and gives the executable.
func goBuild(t *testing.T, folder, name string, args ...string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(lab.Dir, "plugins", name)
	if _, err := os.Stat(exe); err == nil {
		return exe
	}
	cmd := exec.CommandContext(within(t, 3*time.Minute), "go", append([]string{"build", "-trimpath", "-o", exe}, append(args, ".")...)...)
	cmd.Dir = filepath.Join(root, folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", folder, err, out)
	}
	return exe
}

// badPlugin builds a plugin that misbehaves in the way of a mode.
func badPlugin(t *testing.T, mode, id string) string {
	t.Helper()
	return goBuild(t, "sdk/plugintest/badplugin", strings.ReplaceAll(id, ".", "-")+"-"+mode,
		"-ldflags=-s -w -X main.mode="+mode+" -X main.id="+id)
}

// install runs `k3m component install` and gives what it said.
func install(t *testing.T, h *harness.Host, exe string) (string, error) {
	t.Helper()
	return h.K3m(within(t, 60*time.Second), "component", "install", "--yes", exe).CombinedOutput()
}

// TestSecondRuntime installs a second component of an exactly-one kind.
func TestSecondRuntime(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "tworuntimes")
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	exe := badPlugin(t, "good", "runtime.other")
	if out, err := install(t, h, exe); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sentence(t, refuse(t, h, 2, "--enable=runtime=containerd", "--enable=runtime=other"), "--enable", "runtime", "containerd", "other")
	sentence(t, refuse(t, h, 2, "--enable=runtime=oter"), "oter", "other")
	changes, err := h.Changes()
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range changes {
		if left != "file: "+h.DataDir && !strings.HasPrefix(left, "cgroup: ") {
			t.Errorf("the host was touched: %s", left)
		}
	}
	for _, path := range []string{"server", "agent", "components"} {
		if _, err := os.Stat(filepath.Join(h.DataDir, path)); err == nil {
			t.Errorf("the data directory was touched: %s", path)
		}
	}
}
