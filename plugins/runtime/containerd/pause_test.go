package containerd

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/k3m-io/k3m/plugins/runtime/containerd/pause/ociarchive"
)

const goarch = goruntime.GOARCH

// pauseExecutable compiles pause.c as the Makefile does.
func pauseExecutable(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "pause")
	build, err := exec.CommandContext(t.Context(), "sh", "pause/build.sh", "gcc", out).CombinedOutput()
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

// TestPause runs the sandbox's process as the init of a process namespace.
func TestPause(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("process namespaces need root")
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run("ends on "+sig.String(), func(t *testing.T) {
			p := startPause(t)
			if err := p.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := p.Wait(); err != nil {
				t.Errorf("it ended with %v", err)
			}
		})
	}
	t.Run("reaps orphans", func(t *testing.T) {
		p := startPause(t)
		// A shell in the namespace ends before its two children, which become pause's.
		orphans := exec.CommandContext(t.Context(), "nsenter", "-t", strconv.Itoa(p.Process.Pid), "-p", "--", "sh", "-c", "sleep 0.05 & sleep 0.1 & exit 0")
		if out, err := orphans.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		children := fmt.Sprintf("/proc/%d/task/%d/children", p.Process.Pid, p.Process.Pid)
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			left, err := os.ReadFile(children)
			if err != nil {
				t.Fatal(err)
			}
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("children %s are not reaped", left)
			}
		}
	})
}

func startPause(t *testing.T) *exec.Cmd {
	t.Helper()
	p := exec.CommandContext(t.Context(), pauseExecutable(t))
	p.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Wait()
	})
	// It sleeps once it waits for signals; before that, a SIGTERM would be lost.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(status, []byte("State:\tS")) {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not wait:\n%s", status)
		}
	}
}

func digests(layers ...[]byte) []digest.Digest {
	var all []digest.Digest
	for _, l := range layers {
		all = append(all, digest.FromBytes(l))
	}
	return all
}
