package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// TestHostGatewayAndIptables runs a node without nft and with another backend, and
// uninstalls it while it runs.
func TestHostGatewayAndIptables(t *testing.T) {
	h := lab.NewHost(t, "hostgw")
	hide(t, h, "nft")
	preload(t, h)
	node := h.Serve(t, "--flannel-backend=host-gw")
	client, err := node.WaitReady(within(t, 60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, node: node, client: client, ns: "default"}
	s.apply(strings.Replace(echoDeployment, "DRAIN, value: 3s", "DRAIN, value: 0s", 1))
	s.pods("app=echo", 2)
	svc, err := client.CoreV1().Services(s.ns).Get(t.Context(), "echo", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.get(h.HTTP(), "http://"+svc.Spec.ClusterIP)
	if body := s.get(lab.Switch.HTTP(), "http://"+net.JoinHostPort(h.Addr.String(), fmt.Sprint(svc.Spec.Ports[0].NodePort))); !strings.HasPrefix(body, "echo-") {
		t.Errorf("the node port answers %q", body)
	}
	if !strings.Contains(node.Logs(), "mode=iptables") {
		t.Error("the log does not say that iptables was chosen")
	}
	changes, err := h.Changes()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if strings.HasPrefix(c, "interface: flannel.") {
			t.Errorf("host-gw made %s", c)
		}
	}

	// All at once: the server runs, pods run.
	out, err := h.K3m(within(t, 90*time.Second), "uninstall", "--yes").CombinedOutput()
	if err != nil {
		t.Fatalf("k3m uninstall --yes: %v: %s", err, out)
	}
	if node.Running() {
		t.Error("the server goes on after uninstall")
		node.Kill9()
	}
	if left := h.Leftovers(); len(left) > 0 {
		t.Errorf("left over after uninstalling a running node:\n%s", strings.Join(left, "\n"))
	}
}

// hide takes a program away from a host.
func hide(t *testing.T, h *harness.Host, program string) {
	t.Helper()
	script := "for d in /usr/sbin /usr/bin /sbin /bin; do if [ -e $d/" + program + " ]; then mount --bind /dev/null $d/" + program + "; fi; done"
	if out, err := h.Command(within(t, 10*time.Second), "/bin/sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("hide %s: %v: %s", program, err, out)
	}
	h.Rebase(t)
}

// TestNoNetwork leaves the pod network to the user.
func TestNoNetwork(t *testing.T) {
	h := lab.NewHost(t, "nocni")
	preload(t, h)
	node := h.Serve(t, "--enable=cni=none")
	client, err := node.WaitAPI(within(t, 60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	err = harness.Wait(within(t, 60*time.Second), client.CoreV1().Nodes(), node.Name, func(n *corev1.Node) (bool, string) {
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status == corev1.ConditionFalse && strings.Contains(strings.ToLower(c.Message), "cni"), c.Message
			}
		}
		return false, "no Ready condition"
	})
	if err != nil {
		t.Error(err)
	}
	all, err := node.Components(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, there := all["cni.flannel"]; there || !all["runtime.containerd"].Ready() {
		t.Errorf("components are %v", all)
	}
	// A pod of the host's network needs none.
	s := &scene{T: t, node: node, client: client, ns: "default"}
	s.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {hostNetwork: true, tolerations: [{operator: Exists}], terminationGracePeriodSeconds: 1, containers: [{name: e, image: ECHO}]}\n")
	s.pod("p")
	if _, err := os.Stat(h.Path("/sys/class/net/cni0")); err == nil {
		t.Error("there is a bridge")
	}
}
