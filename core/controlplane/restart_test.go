package controlplane_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/core/controlplane"
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
		select {
		case <-cp.APIReady():
			fmt.Println("ready")
		case <-ctx.Done():
		}
	}()
	if err := cp.Run(ctx); err != nil {
		fmt.Println("ended:", err)
		return 1
	}
	return 0
}

// child is a control plane in another process.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	took  time.Duration // from exec to ready
}

func startChild(t *testing.T, dir string) *child {
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
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("control plane says %q, %v", line, err)
	}
	c.took = time.Since(start)
	return c
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
	first := startChild(t, dir)
	kubeconfig, err := os.ReadFile(testOptions(dir).KubeconfigPath)
	if err != nil {
		t.Fatal(err)
	}
	made, err := connect(t, dir).CoreV1().ConfigMaps("default").Create(t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}, Data: map[string]string{"a": "b"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}

	start := time.Now()
	first.stdin.Close()
	if err := first.cmd.Wait(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	stopped := time.Since(start)
	if stopped > 8*time.Second {
		t.Errorf("stopping took %v", stopped)
	}

	second := startChild(t, dir)
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
	third := startChild(t, dir)
	if _, err := connect(t, dir).CoreV1().ConfigMaps("default").Get(t.Context(), "just-before", metav1.GetOptions{}); err != nil {
		t.Errorf("after the kill: %v", err)
	}
	t.Logf("ready after a kill: %v", third.took)
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
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), "--https-listen-port") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(o.DataDir); !os.IsNotExist(err) {
		t.Errorf("the data directory was touched: %v", err)
	}
}

func TestLostAuthorities(t *testing.T) {
	o := testOptions(t.TempDir())
	database := controlplane.DatabaseFile(o.DataDir)
	if err := os.MkdirAll(database[:strings.LastIndex(database, "/")], 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(database, []byte("a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := controlplane.New(o).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("error %v", err)
	}
}
