package containerd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/k3m-io/k3m/plugins/runtime/containerd/pause/ociarchive"
	"github.com/k3m-io/k3m/sdk"
)

const (
	testPause   = "registry.k3m.io/pause:1"
	testBusybox = "registry.test/busybox:1"
)

// node is a containerd in a process of its own, on directories of its own.
type node struct {
	t     *testing.T
	facts sdk.Facts
	layout
	config Config
	cmd    *exec.Cmd
	log    *logBuffer
	// readyAfter is the time from the start of the process until CRI answered.
	readyAfter time.Duration
}

// removeTree removes the cgroup that stands for the kubelet's, with what an interrupted
// runc left in it, as the kubelet does with a pod's.
func removeTree(t *testing.T, parent string) {
	t.Helper()
	// runc uses version 2 also where it is mounted beside version 1.
	for _, top := range append(cgroupDirs(parent), "/sys/fs/cgroup/unified"+parent) {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // what is not there needs no removing
		})
		if err != nil {
			t.Error(err)
		}
		for _, dir := range slices.Backward(dirs) {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newNode makes a node that is not started yet. Everything it may leave on the host is
// removed when the test ends.
func newNode(t *testing.T) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	dir := t.TempDir()
	parent := fmt.Sprintf("/k3m-test-%d-%x", os.Getpid(), time.Now().UnixNano()&0xffffff)
	n := &node{t: t, log: &logBuffer{}, config: Config{Registries: filepath.Join(dir, "etc/registries.yaml")}}
	n.facts = sdk.Facts{
		NodeName:     "test",
		CgroupParent: parent,
		PauseImage:   testPause,
		Paths: sdk.Paths{
			BinDir:           filepath.Join(dir, "bin"),
			CNIBinDir:        filepath.Join(dir, "data/agent/cni/bin"),
			CarriedCNIDir:    filepath.Join(dir, "cni"),
			CNIConfDir:       filepath.Join(dir, "data/agent/etc/cni/net.d"),
			ImagesDir:        filepath.Join(dir, "data/agent/images"),
			CarriedImagesDir: filepath.Join(dir, "carried"),
			RunDir:           filepath.Join(dir, "run"),
			AgentDir:         filepath.Join(dir, "data/agent"),
		},
	}
	n.layout = newLayout(n.facts.Paths.AgentDir, n.facts.Paths.RunDir)
	for _, d := range []string{n.facts.Paths.ImagesDir, n.facts.Paths.CarriedImagesDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(n.facts.Paths.BinDir, os.DirFS(testExecutables(t))); err != nil {
		t.Fatal(err)
	}
	writeImage(t, filepath.Join(n.facts.Paths.CarriedImagesDir, "pause.tar"), pauseImage(t))
	t.Cleanup(func() {
		n.kill()
		n.sweep()
		removeTree(t, parent)
		if t.Failed() {
			t.Logf("the node's log:\n%s", n.log)
		}
	})
	return n
}

// start runs the node and waits until it is ready.
func (n *node) start() {
	n.t.Helper()
	raw, err := json.Marshal(nodeProcess{Config: n.config, Facts: n.facts})
	if err != nil {
		n.t.Fatal(err)
	}
	n.cmd = exec.CommandContext(context.Background(), "/proc/self/exe") // ended by stop, kill or Cleanup
	n.cmd.Env = append(os.Environ(), nodeVariable+"="+string(raw))
	n.cmd.Stderr = n.log
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	began := time.Now()
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	n.readyAfter = time.Since(began)
	if err != nil || strings.TrimSpace(line) != n.endpoint() {
		n.t.Fatalf("the node said %q (%v), want %q", line, err, n.endpoint())
	}
}

// stop ends the node gracefully and returns how long that took.
func (n *node) stop() time.Duration {
	n.t.Helper()
	began := time.Now()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	if err := n.cmd.Wait(); err != nil {
		n.t.Errorf("the node ended with %v", err)
	}
	n.cmd = nil
	return time.Since(began)
}

func (n *node) kill() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait()
		n.cmd = nil
	}
}

// sweep removes what the node left, as Cleanup does.
func (n *node) sweep() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := sweep{
		layout:     n.layout,
		shimCgroup: shimCgroupOf(n.facts.CgroupParent),
		binDir:     n.facts.Paths.BinDir,
		cniDirs:    []string{n.facts.Paths.CNIBinDir, n.facts.Paths.CarriedCNIDir},
		log:        hclog.New(&hclog.LoggerOptions{Output: n.log}),
	}.run(ctx)
	if err != nil {
		n.t.Error(err)
	}
}

// cri connects to the node for the rest of the test.
func (n *node) cri() (runtime.RuntimeServiceClient, runtime.ImageServiceClient) {
	n.t.Helper()
	conn := n.dial()
	return runtime.NewRuntimeServiceClient(conn), runtime.NewImageServiceClient(conn)
}

func (n *node) dial() *grpc.ClientConn {
	n.t.Helper()
	conn, err := dialCRI(n.socket)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { hangUp(conn) })
	return conn
}

// waitImage returns when CRI knows the image.
func (n *node) waitImage(name string) {
	n.t.Helper()
	_, images := n.cri()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		answer, err := images.ImageStatus(context.Background(), &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: name}})
		if err != nil {
			n.t.Fatal(err)
		}
		if answer.Image != nil {
			return
		}
	}
	n.t.Fatalf("image %s did not arrive", name)
}

// runPod starts a sandbox on the host's network and a container in it that sleeps.
func (n *node) runPod(name string) (sandbox, container string) {
	n.t.Helper()
	return n.runPodOn(name, runtime.NamespaceMode_NODE)
}

func (n *node) runPodOn(name string, network runtime.NamespaceMode) (sandbox, container string) {
	n.t.Helper()
	pods, _ := n.cri()
	ctx := context.Background()
	config := n.sandboxConfig(n.t, name)
	config.Linux.SecurityContext.NamespaceOptions.Network = network
	s, err := pods.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: config})
	if err != nil {
		n.t.Fatal(err)
	}
	c, err := pods.CreateContainer(ctx, &runtime.CreateContainerRequest{
		PodSandboxId:  s.PodSandboxId,
		SandboxConfig: config,
		Config: &runtime.ContainerConfig{
			Metadata: &runtime.ContainerMetadata{Name: "main"},
			Image:    &runtime.ImageSpec{Image: testBusybox},
			Command:  []string{"/bin/sh", "-c", "echo started; exec sleep 1000"},
			LogPath:  "main.log",
			Linux:    &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{NamespaceOptions: config.Linux.SecurityContext.NamespaceOptions}},
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := pods.StartContainer(ctx, &runtime.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
		n.t.Fatal(err)
	}
	return s.PodSandboxId, c.ContainerId
}

// sandboxConfig is a sandbox on the host's network.
func (n *node) sandboxConfig(t *testing.T, name string) *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name},
		LogDirectory: t.TempDir(),
		Linux: &runtime.LinuxPodSandboxConfig{
			CgroupParent: n.facts.CgroupParent + "/pods",
			SecurityContext: &runtime.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE},
			},
		},
	}
}

// waitForReady makes a call wait for a connection that a restart broke.
var waitForReady = grpc.WaitForReady(true)

// exec runs a command in the container and returns what it wrote.
func (n *node) exec(container string, command ...string) string {
	n.t.Helper()
	pods, _ := n.cri()
	answer, err := pods.ExecSync(context.Background(), &runtime.ExecSyncRequest{ContainerId: container, Cmd: command, Timeout: 10})
	if err != nil {
		n.t.Fatal(err)
	}
	if answer.ExitCode != 0 {
		n.t.Fatalf("%q ended with %d: %s", command, answer.ExitCode, answer.Stderr)
	}
	return string(answer.Stdout)
}

// testExecutables is a directory with runc, the shim and crictl: K3M_TEST_BIN_DIR, or
// made by the go command.
func testExecutables(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("K3M_TEST_BIN_DIR"); dir != "" {
		return dir
	}
	dir, err := buildExecutables()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var buildExecutables = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("testdata/.bin")
	if err != nil {
		return "", err
	}
	for _, b := range []struct{ cgo, in, out, tags, ldflags, pkg string }{
		{"1", "carried", "runc", "seccomp,urfave_cli_no_docs,netgo,osusergo", "-s -w -linkmode external -extldflags -static", "github.com/opencontainers/runc"},
		{"0", "carried", "crictl", "netgo,osusergo", "-s -w", "sigs.k8s.io/cri-tools/cmd/crictl"},
		{"0", ".", "containerd-shim-runc-v2", "netgo,osusergo,no_grpc", "-s -w", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"},
	} {
		cmd := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-buildvcs=false", "-tags", b.tags, "-ldflags", b.ldflags, "-o", filepath.Join(dir, b.out), b.pkg)
		cmd.Dir, cmd.Env = b.in, append(os.Environ(), "GOFLAGS=", "CGO_ENABLED="+b.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", b.out, err, out)
		}
	}
	return dir, nil
})

func writeImage(t *testing.T, path string, img ociarchive.Image) {
	t.Helper()
	var buf bytes.Buffer
	if err := ociarchive.Write(&buf, img); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func platform() ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: goarch}
}

func busyboxImage(t *testing.T, name string) ociarchive.Image {
	t.Helper()
	bin, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs /bin/busybox from busybox-static")
	}
	return ociarchive.Image{
		Name:     name,
		Platform: platform(),
		Config:   ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}},
		Files:    map[string][]byte{"/bin/busybox": bin},
		Links:    map[string]string{"/bin/sh": "busybox", "/bin/sleep": "busybox", "/bin/echo": "busybox", "/bin/cat": "busybox", "/bin/ps": "busybox"},
	}
}
