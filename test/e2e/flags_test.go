package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
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

const twoFamilies = `
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: e, image: ECHO}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: b, image: BUSYBOX, command: [sleep, "3600"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: asker, labels: {app: asker}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: e, image: ECHO}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, ipFamilyPolicy: PreferDualStack, selector: {app: server}, ports: [{port: 18080, targetPort: 8080}]}
`

const closed = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: server}}, ingress: []}
`

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

// startOnTerminal starts a server on a terminal and under a service manager, and stops it when it
// is ready.
func startOnTerminal(t *testing.T, host *harness.Host, args []string) {
	socket := filepath.Join(host.Dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan []string, 1)
	go func() {
		var all []string
		for buffer := make([]byte, 4096); ; {
			n, err := manager.Read(buffer)
			if err != nil {
				told <- all
				return
			}
			all = append(all, string(buffer[:n]))
		}
	}()
	server := host.K3m(within(t, 60*time.Second), slices.Concat([]string{"server"}, host.Flags(), args)...)
	server.Env = append(server.Env, "TERM=xterm", "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=1000000")
	terminal, err := server.Terminal(40, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	for buffer := make([]byte, 4096); !strings.Contains(shown.String(), "is Ready after"); {
		n, err := terminal.Read(buffer)
		shown.Write(buffer[:n])
		if err != nil {
			t.Errorf("the terminal ended with %v", err)
			break
		}
	}
	_ = server.Process.Signal(syscall.SIGTERM) // it may have ended
	go func() { _, _ = io.Copy(io.Discard, terminal) }()
	if err := server.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	manager.Close()
	for _, want := range []string{`▸ datastore +opens the database`, `· kubelet +waits for the API and the container runtime`, `✓ API +\d+\.\ds`, `✓ runtime\.containerd +\d+\.\ds`, `\x1b\[\d+A\r\x1b\[J`} {
		if !regexp.MustCompile(want).MatchString(shown.String()) {
			t.Errorf("%s was not shown:\n%q", want, shown.String())
		}
	}
	all := strings.Join(<-told, "\n")
	if !regexp.MustCompile(`(?s)STATUS=node dual-[0-9a-f]{8}: \d+ of \d+ are well; .*WATCHDOG=1.*READY=1.*STOPPING=1`).MatchString(all) {
		t.Errorf("the service manager was told:\n%s", all)
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

// dualStack looks at what a cluster of some families has to do in each: pods, Services, load
// balancers, DNS and network policies. The slices hold the beginnings of the addresses, or the
// addresses, of each family.
func dualStack(s *scene, pods, services, balancers []string) {
	server, asker := s.pod("server"), s.pod("asker")
	s.pod("client")
	s.Run("pods", func(t *testing.T) {
		s := s.as(t)
		ips := podIPs(server)
		checkFamilies(t, "the pod", ips, pods)
		for _, ip := range ips {
			target := "http://" + net.JoinHostPort(ip, "8080") + "/"
			if body := s.get(s.node.Host.HTTP(), target); body != "server" {
				t.Errorf("%s answers %q", target, body)
			}
			if !s.reachable(asker, target) {
				t.Errorf("a pod does not reach %s", target)
			}
		}
	})
	s.Run("services", func(t *testing.T) {
		s := s.as(t)
		web := s.service("web")
		checkFamilies(t, "the Service", web.Spec.ClusterIPs, services)
		for _, ip := range web.Spec.ClusterIPs {
			s.becomes(true, asker, "http://"+net.JoinHostPort(ip, "18080")+"/")
		}
		s.ingress("web", strings.Join(balancers, " "))
		for _, ip := range balancers {
			if slices.Contains(s.node.Host.NodeIPs, netip.MustParseAddr(ip)) {
				s.get(lab.Switch.HTTP(), "http://"+net.JoinHostPort(ip, "18080")+"/")
			}
		}
	})
	s.Run("DNS", func(t *testing.T) {
		s := s.as(t)
		waitComponent(t, within(t, pluginBackLimit), s.node, "dns.coredns", harness.Component.Ready)
		web := s.service("web")
		dns, err := s.client.CoreV1().Services("kube-system").Get(t.Context(), "kube-dns", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		checkFamilies(t, "kube-dns", dns.Spec.ClusterIPs, services)
		resolvConf := s.kubectl("exec", "client", "--", "cat", "/etc/resolv.conf")
		for i, ip := range dns.Spec.ClusterIPs {
			if !strings.Contains(resolvConf, "nameserver "+ip+"\n") {
				t.Errorf("resolv.conf of pods lacks %s: %s", ip, resolvConf)
			}
			qtype := "A"
			if strings.Contains(web.Spec.ClusterIPs[i], ":") {
				qtype = "AAAA"
			}
			_, err := eventually(within(t, 30*time.Second), func(ctx context.Context) (any, error) {
				out, _ := s.node.Kubectl(ctx, "-n", s.ns, "exec", "client", "--", "nslookup", "-type="+qtype, "web."+s.ns+".svc.cluster.local", ip)
				if !strings.Contains(out, web.Spec.ClusterIPs[i]) {
					return nil, fmt.Errorf("%s says %q", ip, out)
				}
				return nil, nil
			})
			if err != nil {
				t.Errorf("%s of the Service: %v", qtype, err)
			}
		}
	})
	s.Run("the API from a pod", func(t *testing.T) {
		s := s.as(t)
		at := net.JoinHostPort(asker.Status.PodIP, "8080")
		// The pod's account may do nothing; that it is told so by name is the answer.
		body, err := harness.Get(within(t, 15*time.Second), s.node.Host.HTTP(), "http://"+at+"/api?path="+url.QueryEscape("/version"))
		if err != nil || !strings.Contains(body, "gitVersion") {
			t.Errorf("%v: %s", err, body)
		}
	})
	s.Run("network policies", func(t *testing.T) {
		s := s.as(t)
		s.apply(closed)
		for _, ip := range podIPs(server) {
			s.becomes(false, asker, "http://"+net.JoinHostPort(ip, "8080")+"/")
		}
		s.kubectl("delete", "networkpolicy", "closed")
		for _, ip := range podIPs(server) {
			s.becomes(true, asker, "http://"+net.JoinHostPort(ip, "8080")+"/")
		}
	})
}

func podIPs(pod *corev1.Pod) []string {
	var ips []string
	for _, ip := range pod.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	return ips
}

// checkFamilies sees that there is one address of each range, in this order.
func checkFamilies(t *testing.T, what string, got, prefixes []string) {
	t.Helper()
	var errs []error
	if len(got) != len(prefixes) {
		errs = append(errs, errors.New("not one address of each range"))
	}
	for i := range min(len(got), len(prefixes)) {
		if !strings.HasPrefix(got[i], prefixes[i]) {
			errs = append(errs, fmt.Errorf("%s is not of %s", got[i], prefixes[i]))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("%s has %v, want %v: %v", what, got, prefixes, err)
	}
}

// TestIPv6Only has a cluster without any IPv4 address of its own, on a host that has both.
func TestIPv6Only(t *testing.T) {
	host := lab.NewHost(t, "six")
	preload(t, host)
	host.NodeIPs = []netip.Addr{host.Addr6}
	const advertised = "fd42:198:18::ad"
	if out, err := host.Command(within(t, 10*time.Second), "ip", "address", "add", advertised+"/64", "dev", "eth0", "nodad").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	node := host.Serve(t, "--cluster-cidr=fd42:62::/56", "--service-cidr=fd42:63::/112", "--bind-address=::", "--advertise-address="+advertised)
	client, err := node.WaitReady(within(t, 90*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, node: node, client: client, ns: namespace(t, client)}
	s.apply(twoFamilies)
	dualStack(s, []string{"fd42:62:"}, []string{"fd42:63:"}, []string{host.Addr6.String()})
	t.Run("advertised address", func(t *testing.T) {
		s := s.as(t)
		if got := s.kubectl("get", "endpointslices", "-n", "default", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[*]}"); got != advertised {
			t.Errorf("pods are led to the API at %q", got)
		}
	})
}
