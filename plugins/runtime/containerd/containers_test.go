package containerd

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestContainersOutliveTheProcess runs a pod, and ends containerd under it in each way.
func TestContainersOutliveTheProcess(t *testing.T) {
	n := newNode(t)
	n.start()
	t.Logf("CRI answered %v after the process was started, on an empty data directory", n.readyAfter)
	pods, _ := n.cri()
	version, err := pods.Version(context.Background(), &runtime.VersionRequest{})
	if err != nil || version.RuntimeName != "containerd" {
		t.Fatalf("version %v, %v", version, err)
	}
	status, err := pods.Status(context.Background(), &runtime.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range status.Status.Conditions {
		if c.Type == runtime.RuntimeReady && !c.Status {
			t.Errorf("condition %v", c)
		}
	}
	writeImage(t, filepath.Join(n.facts.Paths.ImagesDir, "busybox.tar"), busyboxImage(t, testBusybox))
	n.waitImage(testBusybox)
	sandbox, container := n.runPod("lives-on")
	if out := n.exec(container, "/bin/echo", "hello"); out != "hello\n" {
		t.Errorf("exec wrote %q", out)
	}
	pid := n.containerPID(t, container)
	if shims, err := cgroupProcesses(shimCgroupOf(n.facts.CgroupParent)); err != nil || len(shims) != 1 {
		t.Errorf("processes %v in the shims' cgroup (%v), want one shim", shims, err)
	}

	for _, end := range []struct {
		name string
		how  func()
	}{
		{"stopped", func() { t.Logf("stopped in %v", n.stop()) }},
		{"killed", n.kill},
		{"upgraded, its old executables removed", func() { n.stop(); n.upgrade() }},
	} {
		t.Run(end.name, func(t *testing.T) {
			end.how()
			if _, err := os.Stat(filepath.Join("/proc", pid)); err != nil {
				t.Fatalf("the container's process is gone: %v", err)
			}
			n.start()
			t.Logf("CRI answered %v after the process was started again", n.readyAfter)
			if again := n.containerPID(t, container); again != pid {
				t.Errorf("the container's process is %s, was %s", again, pid)
			}
			if out := n.exec(container, "/bin/echo", "again"); out != "again\n" {
				t.Errorf("exec wrote %q", out)
			}
		})
	}
	if imports := strings.Count(n.log.String(), "imported an image archive"); imports != 1 {
		t.Errorf("the archive was imported %d times", imports)
	}
	other, otherContainer := n.runPod("after-all-that")
	if out := n.exec(otherContainer, "/bin/echo", "new"); out != "new\n" {
		t.Errorf("exec in a new pod wrote %q", out)
	}
	pods, _ = n.cri()
	if _, err := pods.StopPodSandbox(context.Background(), &runtime.StopPodSandboxRequest{PodSandboxId: other}); err != nil {
		t.Error(err)
	}
	if _, err := pods.StopPodSandbox(context.Background(), &runtime.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join("/proc", pid)); err == nil {
		t.Error("the container goes on after its sandbox was stopped")
	}
	for _, line := range strings.Split(n.log.String(), "\n") {
		if strings.Contains(line, "unknown key") || strings.Contains(line, "[ERROR]") {
			t.Errorf("containerd complained: %s", line)
		}
	}
}

// containerPID checks that CRI says the container runs, and returns its process.
func (n *node) containerPID(t *testing.T, id string) string {
	t.Helper()
	pods, _ := n.cri()
	status, err := pods.ContainerStatus(context.Background(), &runtime.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		t.Fatal(err)
	}
	if status.Status.State != runtime.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("container %s is %v", id, status.Status.State)
	}
	raw, err := os.ReadFile(filepath.Join(n.bundles(), id, "init.pid"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

// upgrade gives the node its executables in another directory, as another version of the
// distribution does.
func (n *node) upgrade() {
	n.t.Helper()
	next := filepath.Join(n.t.TempDir(), "bin")
	if err := os.Rename(n.facts.Paths.BinDir, next); err != nil {
		n.t.Fatal(err)
	}
	n.facts.Paths.BinDir = next
}
