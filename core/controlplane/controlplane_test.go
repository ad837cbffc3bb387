package controlplane_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/k3m-io/k3m/core/controlplane"
)

// One control plane for all tests of the package: Kubernetes' globals allow no second one in
// a process.
var (
	dir    string
	opts   controlplane.Options
	admin  *rest.Config
	client kubernetes.Interface
)

// K3M_TEST_V is klog's verbosity.
func TestMain(m *testing.M) {
	if v := os.Getenv("K3M_TEST_V"); v != "" {
		flags := flag.NewFlagSet("klog", flag.PanicOnError)
		klog.InitFlags(flags)
		_ = flags.Set("v", v)
	}
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(runChild(dir))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	dir, err = os.MkdirTemp("", "k3m-cp-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	opts = testOptions(dir)
	// For TestArguments.
	opts.Args[controlplane.APIServer] = []string{"runtime-config=coordination.k8s.io/v1beta1=false", "runtime-config=coordination.k8s.io/v1beta1=true"}
	opts.Args[controlplane.Scheduler] = append(opts.Args[controlplane.Scheduler], "feature-gates=CoordinatedLeaderElection=true")
	cp := controlplane.New(opts)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- cp.Run(ctx) }()
	select {
	case <-cp.APIReady():
	case err := <-done:
		fmt.Fprintln(os.Stderr, "control plane ended:", err)
		return 1
	case <-time.After(time.Minute):
		fmt.Fprintln(os.Stderr, "control plane is not ready after a minute")
		return 1
	}
	if admin, err = clientcmd.BuildConfigFromFlags("", opts.KubeconfigPath); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	admin.QPS = -1
	client = kubernetes.NewForConfigOrDie(admin)

	code := m.Run()
	start := time.Now()
	cancel()
	if err := <-done; err != nil {
		fmt.Fprintln(os.Stderr, "control plane stopped with:", err)
		code = 1
	}
	if took := time.Since(start); took > stopLimit {
		fmt.Fprintln(os.Stderr, "control plane took too long to stop:", took)
		code = 1
	}
	return code
}

func testOptions(dir string) controlplane.Options {
	return controlplane.Options{
		DataDir:        filepath.Join(dir, "data"),
		RunDir:         filepath.Join(dir, "run"),
		NodeName:       "server-1",
		NodeIPs:        []netip.Addr{netip.MustParseAddr("192.0.2.10")},
		BindAddress:    netip.MustParseAddr("127.0.0.1"),
		ClusterCIDRs:   []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")},
		ServiceCIDRs:   []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		ClusterDNS:     []netip.Addr{netip.MustParseAddr("10.43.0.10")},
		ClusterDomain:  "cluster.local",
		KubeconfigPath: filepath.Join(dir, "k3m.yaml"),
		Component: func(id, _ string) ([]string, bool) {
			return []string{"k3m:component:" + id, "k3m:components"}, id == "addon.whoami"
		},
		Args: controlplane.Args{
			controlplane.ControllerManager: {fmt.Sprint("secure-port=", freePort())},
			controlplane.Scheduler:         {fmt.Sprint("secure-port=", freePort())},
		},
	}
}

func freePort() int {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
