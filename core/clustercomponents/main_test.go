package clustercomponents_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/core/clustercomponents"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/sdk"
)

// One control plane for all tests of the package: Kubernetes' globals allow no second one in a
// process. Its controllers are real too: they take away what belongs to a Node that is gone, and
// must leave k3m's slices alone.
var (
	admin   *rest.Config
	client  kubernetes.Interface
	objects dynamic.Interface
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "k3m-cc-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	cp := controlplane.New(controlplane.Options{
		DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"),
		NodeName: "server-1", NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.10")}, BindAddress: netip.MustParseAddr("127.0.0.1"),
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.43.0.10")}, ClusterDomain: "cluster.local",
		KubeconfigPath: filepath.Join(dir, "k3m.yaml"),
		Component:      func(string, string) ([]string, bool) { return nil, false },
		Args: controlplane.Args{
			controlplane.ControllerManager: {
				fmt.Sprint("secure-port=", freePort()),
				// The tests play the kubelets: a node is lost soon, and none is evicted.
				"node-monitor-grace-period=4s", "node-monitor-period=500ms",
			},
			controlplane.Scheduler: {fmt.Sprint("secure-port=", freePort())},
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- cp.Run(ctx) }()
	select {
	case <-cp.APIReady():
	case err := <-done:
		fmt.Fprintln(os.Stderr, "control plane ended:", err)
		return 1
	}
	if admin, err = clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "k3m.yaml")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	admin.QPS = -1
	client, objects = kubernetes.NewForConfigOrDie(admin), dynamic.NewForConfigOrDie(admin)
	code := m.Run()
	cancel()
	if err := <-done; err != nil {
		fmt.Fprintln(os.Stderr, "control plane stopped with:", err)
		return 1
	}
	return code
}

func freePort() int {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// keep runs a Cluster until stop is called, or the test ends.
func keep(t *testing.T, selected ...sdk.Info) (c *clustercomponents.Cluster, stop func()) {
	t.Helper()
	c, err := clustercomponents.New(clustercomponents.Options{
		Config: admin, ClusterDNS: []netip.Addr{netip.MustParseAddr("10.43.0.10")}, ClusterDomain: "cluster.local",
		ServerCA: []byte("-----BEGIN CERTIFICATE-----\n"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	c.SetSelected(selected)
	stop = start(t, c.Run)
	<-c.Installed()
	return c, stop
}

// start runs something until stop is called, or the test ends.
func start(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// eventually waits for what others do; it asks, since what is waited for differs so much.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	last := errors.New("never asked")
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 45*time.Second, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, last)
	}
}
