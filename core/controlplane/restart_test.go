package controlplane_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/datastore"
)

const childEnv = "K3M_TEST_CONTROL_PLANE"

// runChild runs a control plane in dir, in a process of its own, until its standard input ends.
func runChild(dir string) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	cp := controlplane.New(testOptions(dir))
	go func() {
		<-cp.Joinable()
		fmt.Println("joinable")
		<-cp.APIReady() // or never
		fmt.Println("ready")
	}()
	if err := cp.Run(ctx); err != nil {
		fmt.Println("ended:", err)
		return 1
	}
	return 0
}

// stopLimit is what a service manager allows.
const stopLimit = 10 * time.Second

// child is a control plane in another process.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	took  time.Duration // from exec to what was waited for
}

// startChild starts a control plane and waits until it says what is given.
func startChild(t *testing.T, dir, until string) *child {
	t.Helper()
	c := &child{cmd: exec.CommandContext(t.Context(), os.Args[0])}
	c.cmd.Env = append(os.Environ(), childEnv+"="+dir)
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill(); _ = c.cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != until {
		if strings.HasPrefix(lines.Text(), "ended:") {
			t.Fatal(lines.Text())
		}
	}
	if err := lines.Err(); err != nil || lines.Text() != until {
		t.Fatalf("control plane did not get to %s: %v", until, err)
	}
	c.took = time.Since(start)
	return c
}

// stop asks the control plane to stop, and wants it gone in time and without an error.
func (c *child) stop(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	if err := c.stdin.Close(); err != nil {
		t.Error(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	took := time.Since(start)
	if took > stopLimit {
		t.Errorf("stopping took %v", took)
	}
	return took
}

func connect(t *testing.T, dir string) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", testOptions(dir).KubeconfigPath)
	if err != nil {
		t.Fatal(err)
	}
	return kubernetes.NewForConfigOrDie(config)
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	first := startChild(t, dir, "ready")
	kubeconfig, err := os.ReadFile(testOptions(dir).KubeconfigPath)
	if err != nil {
		t.Fatal(err)
	}
	made, err := connect(t, dir).CoreV1().ConfigMaps("default").Create(t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}, Data: map[string]string{"a": "b"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}

	stopped := first.stop(t)

	second := startChild(t, dir, "ready")
	got, err := connect(t, dir).CoreV1().ConfigMaps("default").Get(t.Context(), "kept", metav1.GetOptions{})
	if err != nil || got.UID != made.UID || got.Data["a"] != "b" {
		t.Errorf("after the restart: %+v, %v", got, err)
	}
	after, err := os.ReadFile(testOptions(dir).KubeconfigPath)
	if err != nil || withoutServer(after) != withoutServer(kubeconfig) {
		t.Errorf("the kubeconfig changed: %v", err)
	}
	t.Logf("ready after %v, stopped after %v, ready again after %v", first.took, stopped, second.took)

	// A kill loses nothing that was acknowledged either.
	if _, err := connect(t, dir).CoreV1().ConfigMaps("default").Create(t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "just-before"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_ = second.cmd.Process.Kill()
	_ = second.cmd.Wait()
	third := startChild(t, dir, "ready")
	if _, err := connect(t, dir).CoreV1().ConfigMaps("default").Get(t.Context(), "just-before", metav1.GetOptions{}); err != nil {
		t.Errorf("after the kill: %v", err)
	}
	t.Logf("ready after a kill: %v", third.took)
}

// A stop in the middle of the start is a stop, not a crash, and the next start is a start.
func TestStopDuringTheBoot(t *testing.T) {
	dir := t.TempDir()
	t.Logf("stopped after %v", startChild(t, dir, "joinable").stop(t))
	t.Logf("ready after %v", startChild(t, dir, "ready").took)
}

// withoutServer drops the line that names the port, which is another one at each start here.
func withoutServer(kubeconfig []byte) string {
	var kept []string
	for _, line := range strings.Split(string(kubeconfig), "\n") {
		if !strings.Contains(line, "server: ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

func TestPortInUse(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := testOptions(t.TempDir())
	o.Port = l.Addr().(*net.TCPAddr).Port
	err = controlplane.New(o).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), "stop what uses port") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(o.DataDir); !os.IsNotExist(err) {
		t.Errorf("the data directory was touched: %v", err)
	}
}

func TestLostAuthorities(t *testing.T) {
	o := testOptions(t.TempDir())
	store, err := datastore.Open(t.Context(), datastore.Options{
		File: controlplane.DatabaseFile(o.DataDir), Socket: filepath.Join(t.TempDir(), "kine.sock"),
	})
	if err != nil {
		t.Fatal(err)
	}
	store.Close()
	err = controlplane.New(o).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("error %v", err)
	}
}
