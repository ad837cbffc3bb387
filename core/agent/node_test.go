package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	csispec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/vishvananda/netlink"
	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/fake"
	"k8s.io/kubernetes/pkg/util/iptables"
	"k8s.io/kubernetes/pkg/volume/csi"
	"sigs.k8s.io/knftables"

	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/datastore"
)

// TestNode runs a real node against a real control plane, in one process as a server does, with
// a runtime that only says yes. There can be one kubelet in a process, so this is one test.
func TestNode(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	nodeIP := netip.MustParseAddr("192.0.2.7")
	addInterface(t, "node", nodeIP.String()+"/24")
	keepKernelSettings(t)
	const cgroupRoot = "/k3m-agent-test-node"

	dir := t.TempDir()
	lock, err := datastore.AcquireLock(controlplane.LockFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Release() }()
	cidr := netip.MustParsePrefix
	start := time.Now()
	cp := controlplane.New(controlplane.Options{
		DataDir: dir, RunDir: "/run/k3m", NodeName: "n1", NodeIPs: []netip.Addr{nodeIP}, Port: 6443,
		ClusterCIDRs: []netip.Prefix{cidr("10.42.0.0/16")}, ServiceCIDRs: []netip.Prefix{cidr("10.43.0.0/16")},
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.43.0.10")}, ClusterDomain: "cluster.local",
		KubeconfigPath: filepath.Join(dir, "admin.yaml"),
		Component:      func(id, _ string) ([]string, bool) { return []string{"k3m:components"}, id == "cni.flannel" },
	})
	cpCtx, stopControlPlane := context.WithCancel(context.Background())
	cpDone := make(chan error, 1)
	go func() { cpDone <- cp.Run(cpCtx) }()
	defer func() {
		stopControlPlane()
		if err := <-cpDone; err != nil {
			t.Errorf("control plane: %v", err)
		}
	}()

	runtime := fake.NewFakeRemoteRuntime()
	socket := filepath.Join(dir, "cri.sock")
	if err := runtime.Start("unix://" + socket); err != nil {
		t.Fatal(err)
	}
	defer runtime.Stop()
	runtime.RuntimeService.FakeLinuxConfiguration = &criapi.LinuxRuntimeConfiguration{CgroupDriver: criapi.CgroupDriver_CGROUPFS}

	a := newTestAgent(t, Options{
		NodeName: "n1", NodeIPs: []netip.Addr{nodeIP}, DataDir: dir,
		ServerURL: "https://127.0.0.1:6443", TokenFile: controlplane.TokenFile(dir), ServerUp: cp.Joinable(), ControllersBuilt: cp.ControllersBuilt(),
		Runtime:    func(context.Context) (string, error) { return socket, nil },
		CgroupRoot: cgroupRoot, KubeletArgs: []string{"node-labels=k3m.io/test=yes"},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	for _, e := range []struct {
		name  string
		event <-chan struct{}
	}{{"api ready", cp.APIReady()}, {"joined", a.Joined()}, {"node registered", a.NodeRegistered()}, {"node ready", a.NodeReady()}} {
		select {
		case <-e.event:
			t.Logf("%s after %v", e.name, time.Since(start).Round(time.Millisecond))
		case err := <-done:
			t.Fatalf("agent ended before %s: %v", e.name, err)
		case err := <-cpDone:
			cpDone <- err
			t.Fatalf("control plane ended before %s: %v", e.name, err)
		case <-time.After(time.Minute):
			t.Fatalf("no %s after a minute", e.name)
		}
	}

	t.Run("node object", func(t *testing.T) {
		client, err := kubernetes.NewForConfig(cp.AdminConfig())
		if err != nil {
			t.Fatal(err)
		}
		node, err := client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if node.Labels["k3m.io/test"] != "yes" {
			t.Errorf("labels %v", node.Labels)
		}
		if got := node.Status.Addresses[0].Address; got != nodeIP.String() {
			t.Errorf("address %s", got)
		}
	})
	t.Run("component identity", func(t *testing.T) {
		if _, err := a.ComponentKubeconfig(ctx, "cni.flannel", 0); err != nil {
			t.Error(err)
		}
		if _, err := a.ComponentKubeconfig(ctx, "dns.coredns", 0); err == nil || !strings.Contains(err.Error(), "not selected") {
			t.Errorf("a component that is not selected: %v", err)
		}
	})
	t.Run("kubelet refuses strangers", func(t *testing.T) {
		client := &http.Client{Timeout: soon, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		for _, path := range []string{"/pods", "/metrics", "/healthz", "/runningpods/"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://192.0.2.7:10250"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s, want 401", path, resp.Status)
			}
		}
	})
	t.Run("API server reaches the kubelet", func(t *testing.T) {
		client, err := kubernetes.NewForConfig(cp.AdminConfig())
		if err != nil {
			t.Fatal(err)
		}
		body, err := client.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/n1/proxy/pods").DoRaw(t.Context())
		if err != nil || !strings.Contains(string(body), "PodList") {
			t.Errorf("%s, %v", body, err)
		}
	})
	t.Run("kube-proxy makes nftables rules", func(t *testing.T) {
		nft, err := knftables.New(knftables.IPv4Family, "kube-proxy")
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, "Services in the packet filter", func() error {
			elements, err := nft.ListElements(t.Context(), "map", "service-ips")
			if err == nil && len(elements) == 0 {
				err = errors.New("none")
			}
			return err
		})
		if iptables.New(iptables.ProtocolIPv4).Present() == nil {
			if exists, err := iptables.New(iptables.ProtocolIPv4).ChainExists(iptables.TableMangle, "KUBE-KUBELET-CANARY"); err == nil && exists {
				t.Error("the kubelet made iptables chains")
			}
		}
	})
	t.Run("CSI drivers register with the node", func(t *testing.T) {
		driver := newCSIDriver(t)
		register := func() error {
			return csi.PluginHandler.RegisterPlugin(t.Context(), "csi.example.com", driver, []string{"1.0.0"}, nil)
		}
		if err := register(); err != nil {
			t.Error(err)
		}
		client, err := kubernetes.NewForConfig(cp.AdminConfig())
		if err != nil {
			t.Fatal(err)
		}
		node, err := client.StorageV1().CSINodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil || len(node.Spec.Drivers) != 1 || node.Spec.Drivers[0].Name != "csi.example.com" {
			t.Errorf("CSINode has drivers %v, %v", node.Spec.Drivers, err)
		}
	})
	t.Run("pods' cgroups are under the root", func(t *testing.T) {
		m, err := cgroupManager(cgroupRoot + "/kubepods/besteffort")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(m.Path("cpu")); err != nil {
			t.Error(err)
		}
	})

	stop()
	stopping := time.Now()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		t.Logf("stopped after %v", time.Since(stopping).Round(time.Millisecond))
	case <-time.After(5 * time.Second):
		t.Error("Run did not return")
	}
	if err := Cleanup(context.Background(), a.opts); err != nil {
		t.Error(err)
	}
}

func addInterface(t *testing.T, name, cidr string) {
	t.Helper()
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) })
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

// keepKernelSettings undoes what the kubelet changes for the whole machine.
func keepKernelSettings(t *testing.T) {
	for name := range kernelSettings {
		path := "/proc/sys/" + name
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(path, before, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// waitFor asks until there is no error; it is for things that send no event.
func waitFor(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for err := check(); err != nil; err = check() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// csiDriver knows the name of its node and nothing else.
type csiDriver struct {
	csispec.UnimplementedNodeServer
}

func (csiDriver) NodeGetInfo(context.Context, *csispec.NodeGetInfoRequest) (*csispec.NodeGetInfoResponse, error) {
	return &csispec.NodeGetInfoResponse{NodeId: "n1"}, nil
}

// newCSIDriver serves a CSI driver and returns its socket.
func newCSIDriver(t *testing.T) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "csi.sock")
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	csispec.RegisterNodeServer(server, csiDriver{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return socket
}
