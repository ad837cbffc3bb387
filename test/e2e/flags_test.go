package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// TestFlags starts one dual-stack server with everything that can be chosen about addresses,
// names and files, and looks for the effect of each.
func TestFlags(t *testing.T) {
	cluster(t) // its kubelet has set the kernel as --protect-kernel-defaults wants it
	host := lab.NewHost(t, "dual")
	preload(t, host)
	host.NodeIPs = []netip.Addr{host.Addr, host.Addr6}
	const gid = 12345
	args := []string{
		"--cluster-cidr=10.52.0.0/16,fd42:52::/56", "--service-cidr=10.53.0.0/16,fd42:53::/112",
		"--service-node-port-range=31000-31009",
		"--node-label=k3m.test/rack=r1", "--node-taint=k3m.test/dedicated=yes:PreferNoSchedule",
		"--node-external-ip=203.0.113.7,2001:db8::7", "--with-node-id", "--protect-kernel-defaults",
		"--bind-address=" + host.Addr.String(), "--https-listen-port=7443", "--tls-san=k3m.example.test,192.0.2.77",
		"--write-kubeconfig-mode=0640", fmt.Sprintf("--write-kubeconfig-group=%d", gid),
	}
	node := host.Serve(t, args...)
	ctx := within(t, 90*time.Second)
	if err := node.WaitKubeconfig(ctx); err != nil {
		t.Fatal(err)
	}
	node.Name = host.Name + "-" + strings.TrimSpace(read(t, filepath.Join(host.DataDir, "agent", "node-id")))
	client, err := node.WaitReady(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, node: node, client: client, ns: namespace(t, client)}
	// The addresses are told just after the registration.
	var object *corev1.Node
	if err := harness.Wait(ctx, client.CoreV1().Nodes(), node.Name, func(n *corev1.Node) (bool, string) {
		object = n
		return len(n.Status.Addresses) == 5 && len(n.Spec.Taints) == 1, fmt.Sprint(n.Status.Addresses, n.Spec.Taints)
	}); err != nil {
		t.Fatal(err)
	}

	t.Run("node", func(t *testing.T) { flagsOfTheNode(t, host, object) })
	t.Run("API", func(t *testing.T) { s.as(t).flagsOfTheAPI(gid) })
	s.apply(twoFamilies)
	dualStack(s, []string{"10.52.", "fd42:52:"}, []string{"10.53.", "fd42:53:"}, []string{"203.0.113.7", "2001:db8::7"})
	t.Run("node ports", func(t *testing.T) {
		s := s.as(t)
		port := int(s.service("web").Spec.Ports[0].NodePort)
		if port < 31000 || port > 31009 {
			t.Errorf("the node port is %d", port)
		}
		for _, ip := range host.NodeIPs {
			s.get(lab.Switch.HTTP(), "http://"+net.JoinHostPort(ip.String(), fmt.Sprint(port))+"/")
		}
	})
	t.Run("the ranges of a cluster stay", func(t *testing.T) {
		node.Stop(t)
		said := refuse(t, host, 2, "--bind-address="+host.Addr.String(), "--cluster-cidr=10.62.0.0/16,fd42:62::/56", "--service-cidr=10.53.0.0/16,fd42:53::/112")
		sentence(t, said, "--cluster-cidr", "10.62.0.0/16,fd42:62::/56", "made with 10.52.0.0/16,fd42:52::/56", "--data-dir")
	})
	t.Run("the node's password", func(t *testing.T) { otherPassword(t, host, node.Name, args) })
	t.Run("a start on a terminal", func(t *testing.T) { startOnTerminal(t, host, args) })
	node.Restart(t)
	if _, err := node.WaitReady(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
}

// otherPassword starts the node as a machine that has not its password.
func otherPassword(t *testing.T, host *harness.Host, name string, args []string) {
	file := filepath.Join(host.DataDir, "agent", "node-password")
	password := read(t, file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	server := host.K3m(within(t, 60*time.Second), slices.Concat([]string{"server"}, host.Flags(), args)...)
	said, err := server.CombinedOutput()
	if err == nil {
		t.Error("it started with another password")
	}
	lines := strings.Split(strings.TrimSpace(said), "\n")
	sentence(t, lines[len(lines)-1], "node "+name+" has joined with another password", "choose another --node-name", "delete secret "+name+".node-password.k3m")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
}

func flagsOfTheNode(t *testing.T, host *harness.Host, node *corev1.Node) {
	if !regexp.MustCompile(`^dual-[0-9a-f]{8}$`).MatchString(node.Name) {
		t.Errorf("--with-node-id: the node is called %s", node.Name)
	}
	if got := node.Labels["k3m.test/rack"]; got != "r1" {
		t.Errorf("--node-label: the label is %q", got)
	}
	if got := node.Spec.Taints[0]; got.ToString() != "k3m.test/dedicated=yes:PreferNoSchedule" {
		t.Errorf("--node-taint: the taint is %s", got.ToString())
	}
	want := []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: host.Addr.String()}, {Type: corev1.NodeInternalIP, Address: host.Addr6.String()},
		{Type: corev1.NodeExternalIP, Address: "203.0.113.7"}, {Type: corev1.NodeExternalIP, Address: "2001:db8::7"},
		{Type: corev1.NodeHostName, Address: node.Name},
	}
	if !slices.Equal(node.Status.Addresses, want) {
		t.Errorf("--node-external-ip: the addresses are %v", node.Status.Addresses)
	}
	if machineID, err := os.ReadFile("/etc/machine-id"); err == nil && node.Status.NodeInfo.MachineID != strings.TrimSpace(string(machineID)) {
		t.Errorf("the machine's ID is %q, the node's %q", machineID, node.Status.NodeInfo.MachineID)
	}
	if !slices.ContainsFunc(node.Spec.PodCIDRs, func(c string) bool { return strings.HasPrefix(c, "10.52.") && strings.HasSuffix(c, "/24") }) ||
		!slices.ContainsFunc(node.Spec.PodCIDRs, func(c string) bool { return strings.HasPrefix(c, "fd42:52:") && strings.HasSuffix(c, "/64") }) {
		t.Errorf("--cluster-cidr: the node's ranges are %v", node.Spec.PodCIDRs)
	}
}

func (s *scene) flagsOfTheAPI(gid uint32) {
	t, host := s.T, s.node.Host
	at := net.JoinHostPort(host.Addr.String(), "7443")
	conn, err := host.Dial(t.Context(), "tcp", at)
	if err != nil {
		t.Fatalf("--bind-address, --https-listen-port: %v", err)
	}
	defer conn.Close()
	handshake := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // to look at the certificate
	if err := handshake.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"k3m.example.test", "192.0.2.77", "203.0.113.7", "2001:db8::7", "10.53.0.1", "fd42:53::1"} {
		if err := handshake.ConnectionState().PeerCertificates[0].VerifyHostname(name); err != nil {
			t.Errorf("--tls-san: %v", err)
		}
	}
	if conn, err := host.Dial(t.Context(), "tcp", "127.0.0.1:7443"); err == nil {
		conn.Close()
		t.Error("--bind-address: the API listens on the loopback too")
	}
	if slice := s.kubectl("get", "endpointslices", "-n", "default", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[*]} {.ports[*].port}"); slice != host.Addr.String()+" 7443" {
		t.Errorf("pods are led to the API at %q", slice)
	}
	info, err := os.Stat(host.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o640 {
		t.Errorf("--write-kubeconfig-mode: it is %o", mode)
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Gid != gid || owner.Uid != 0 {
		t.Errorf("--write-kubeconfig-group: it is %d:%d", owner.Uid, owner.Gid)
	}
	secret, err := s.client.CoreV1().Secrets("kube-system").Get(t.Context(), s.node.Name+".node-password.k3m", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	password := strings.TrimSpace(read(t, filepath.Join(host.DataDir, "agent", "node-password")))
	for key, value := range secret.Data {
		if strings.Contains(string(value), password) {
			t.Errorf("the Secret of the node's password holds it, in %s", key)
		}
	}
	var kubelet struct {
		KubeletConfig struct{ ProtectKernelDefaults bool }
	}
	raw := s.kubectl("get", "--raw", "/api/v1/nodes/"+s.node.Name+"/proxy/configz")
	if err := json.Unmarshal([]byte(raw), &kubelet); err != nil || !kubelet.KubeletConfig.ProtectKernelDefaults {
		t.Errorf("--protect-kernel-defaults: %v: %s", err, raw)
	}
}
