package nodeip

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/sdk/plugintest"
)

func internal(ip string) corev1.NodeAddress {
	return corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip}
}

// free are the ports that the nodes of TestCluster report as free.
func free() map[port]string {
	return map[port]string{{80, "TCP"}: "", {443, "TCP"}: "", {81, "TCP"}: "", {82, "TCP"}: "", {30999, "TCP"}: "", {53, "UDP"}: ""}
}

// with gives free ports, and a holder of one.
func with(p port, holder string) map[port]string {
	ports := free()
	ports[p] = holder
	return ports
}

// TestCluster drives the component against a real API server, with the rights of its Info.
func TestCluster(t *testing.T) {
	f := newFixture(t)
	t.Run("contract", func(t *testing.T) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		plugintest.Run(t, plugintest.Options{
			New: New, Executable: self, Args: []string{id}, // see TestMain
			Kubeconfig: f.kubeconfig,
			Config:     json.RawMessage(`{"addresses": "all", "reservedPorts": [2222, "5353/udp"], "defaultPool": "edge"}`),
			BadConfigs: badConfigs,
		})
	})
	f.node("a", nil, internal("10.0.0.1"), internal("fd00::1"))
	f.node("b", nil, internal("10.0.0.2"), internal("fd00::2"))
	f.says("a", false, free())
	f.says("b", false, free())
	p, stop := f.run("server-1", `{}`)

	t.Run("nodes' addresses", func(t *testing.T) { f.testAddresses(t, p) })
	t.Run("conflicts", f.testConflicts)
	t.Run("choice of nodes", f.testNodes)
	t.Run("addresses of others", f.testForeign)
	t.Run("local traffic", f.testLocal)
	t.Run("classes", f.testClasses)
	t.Run("a restart changes nothing", func(t *testing.T) {
		f.service(t, "web", 80)
		before := f.has(t, "web", "10.0.0.1 10.0.0.2")
		waiting := f.service(t, "web2", 80)
		f.pending(t, waiting, "Service default/web")
		stop()
		// What the nodes report is lost while they start again.
		f.says("a", false, nil)
		f.says("b", false, nil)
		_, stop = f.run("server-1", `{}`)
		after := f.has(t, "web", "10.0.0.1 10.0.0.2")
		if after.ResourceVersion != before.ResourceVersion {
			t.Errorf("the Service was written: %v", after.ManagedFields)
		}
		f.says("a", false, free())
		f.says("b", false, free())
	})
	t.Run("several servers", func(t *testing.T) {
		stop()
		f.says("a", true, free())
		p, stop := f.run("server-2", `{}`)
		if p.metrics.leading.Load() != 1 {
			t.Error("an agent's word keeps a server from leading")
		}
		stop()
		f.label("a", labelServer, "true")
		p, stop = f.run("server-2", `{}`)
		if p.metrics.leading.Load() != 0 {
			t.Error("it leads beside the one on node a")
		}
		f.service(t, "web", 80)
		f.says("a", false, free())
		f.has(t, "web", "10.0.0.1 10.0.0.2")
		stop()
	})
	t.Run("classes only", func(t *testing.T) {
		_, stop := f.run("server-1", `{}`)
		f.service(t, "left", 80)
		f.has(t, "left", "10.0.0.1 10.0.0.2")
		stop()
		_, stop = f.run("server-1", `{"defaultClass": false}`)
		f.has(t, "left", "")
		f.service(t, "ours", 81, func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr(class) })
		f.has(t, "ours", "10.0.0.1 10.0.0.2")
		stop()
	})
	t.Run("external addresses", func(t *testing.T) {
		f.node("c", map[string]string{labelPool: "far"}, internal("10.0.0.3"), corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "203.0.113.3"})
		f.says("c", false, free())
		for config, want := range map[string]string{
			`{"defaultPool": "far"}`:                          "203.0.113.3",
			`{"defaultPool": "far", "addresses": "internal"}`: "10.0.0.3",
			`{"defaultPool": "far", "addresses": "all"}`:      "10.0.0.3 203.0.113.3",
		} {
			t.Run(config, func(t *testing.T) {
				_, stop := f.run("server-1", config)
				defer stop()
				f.service(t, "web", 80)
				f.has(t, "web", want)
			})
		}
	})
}

// An address goes to Services only if its node can have it: what a kubelet says of its addresses,
// kube-proxy on every node takes traffic for.
func TestOwnersOfAddresses(t *testing.T) {
	born := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	n := func(name string, age time.Duration, addresses ...corev1.NodeAddress) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(born.Add(-age))},
			Status: corev1.NodeStatus{Addresses: addresses}}
	}
	external := func(ip string) corev1.NodeAddress {
		return corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: ip}
	}
	old := n("z-old", time.Hour, internal("10.0.0.1"), external("203.0.113.1"), internal("fd00::1"))
	stolen := n("a-stolen", 0, external("10.0.0.1"), external("fd00::1"), external("10.42.3.4"), external("::ffff:10.43.0.1"), external("127.0.0.1"),
		external("169.254.169.254"), external("224.0.0.1"), external("0.0.0.0"), external("fe80::1%eth0"), external("2001:db8::1%eth0"),
		external("host.example.org"), internal("10.0.0.2"))
	owners := ownersOf([]*corev1.Node{stolen, old}, []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("10.43.0.0/16")})
	for _, c := range []struct {
		node *corev1.Node
		want string
	}{{old, "[203.0.113.1 10.0.0.1] [fd00::1]"}, {stolen, "[10.0.0.2] []"}} {
		v := viewNode(c.node, config{Addresses: allAddresses}, owners)
		if got := fmt.Sprint(v.addresses[ipv4], " ", v.addresses[ipv6]); got != c.want {
			t.Errorf("%s: %s, want %s", c.node.Name, got, c.want)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func (f *fixture) testAddresses(t *testing.T, p *plugin) {
	web := f.service(t, "web", 80)
	got := f.has(t, "web", "10.0.0.1 10.0.0.2")
	for _, i := range got.Status.LoadBalancer.Ingress {
		if i.IPMode == nil || *i.IPMode != corev1.LoadBalancerIPModeVIP || len(i.Ports) != 1 || i.Ports[0].Port != 80 {
			t.Errorf("ingress %+v", i)
		}
	}
	f.warned(t, web, reasonAssigned, "10.0.0.1, 10.0.0.2")
	var text bytes.Buffer
	if err := p.WriteMetrics(t.Context(), &text); err != nil || !strings.Contains(text.String(), "\nk3m_servicelb_services 1\n") {
		t.Errorf("metrics: %v\n%s", err, text.String())
	}
	if got.Spec.Ports[0].NodePort == 0 {
		t.Error("the Service has no node port: the API's default was changed")
	}
	t.Run("dual stack", func(t *testing.T) {
		f.service(t, "both", 443, func(s *corev1.Service) { s.Spec.IPFamilyPolicy = ptr(corev1.IPFamilyPolicyRequireDualStack) })
		f.has(t, "both", "10.0.0.1 10.0.0.2 fd00::1 fd00::2")
		f.patch(t, "both", `{"ipFamilyPolicy":"SingleStack"}`)
		f.has(t, "both", "10.0.0.1 10.0.0.2")
		f.service(t, "six", 82, func(s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} })
		f.has(t, "six", "fd00::1 fd00::2")
	})
	t.Run("a port more", func(t *testing.T) {
		f.patch(t, "web", `{"ports":[{"name":"http","port":80},{"name":"https","port":81}]}`)
		f.wait(t, "web", func(s *corev1.Service) bool {
			i := s.Status.LoadBalancer.Ingress
			return len(i) == 2 && len(i[0].Ports) == 2
		})
	})
	t.Run("another type", func(t *testing.T) {
		f.patch(t, "web", `{"type":"NodePort"}`)
		f.has(t, "web", "")
		f.patch(t, "web", `{"type":"LoadBalancer"}`)
		f.has(t, "web", "10.0.0.1 10.0.0.2")
	})
	t.Run("somebody else writes", func(t *testing.T) {
		patch := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"10.9.9.9"}]}}}`)
		if _, err := f.admin.CoreV1().Services(f.ns).Patch(t.Context(), "web", types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		f.has(t, "web", "10.0.0.1 10.0.0.2")
	})
	t.Run("a node that has not looked", func(t *testing.T) {
		f.service(t, "unknown", 9000)
		f.service(t, "known", 443)
		f.has(t, "known", "10.0.0.1 10.0.0.2") // decided together with the other one
		f.has(t, "unknown", "")
		f.says("b", false, with(port{9000, "TCP"}, ""))
		f.has(t, "unknown", "10.0.0.2")
		f.says("b", false, free())
	})
}

func (f *fixture) testConflicts(t *testing.T) {
	t.Run("another Service", func(t *testing.T) {
		f.service(t, "first", 80)
		f.has(t, "first", "10.0.0.1 10.0.0.2")
		second := f.service(t, "second", 80)
		f.pending(t, second, "port 80/TCP is held by Service default/first on a (10.0.0.1), b (10.0.0.2)")
		f.remove(t, "first")
		f.has(t, "second", "10.0.0.1 10.0.0.2")
		f.warned(t, second, reasonAssigned, "10.0.0.1, 10.0.0.2")
	})
	t.Run("a process", func(t *testing.T) {
		f.says("a", false, with(port{80, "TCP"}, "nginx (pid 4711)"))
		web := f.service(t, "web", 80)
		f.has(t, "web", "10.0.0.2")
		f.warned(t, web, reasonTaken, "process nginx (pid 4711) on a (10.0.0.1)")
		f.says("a", false, free())
		f.has(t, "web", "10.0.0.1 10.0.0.2")
	})
	t.Run("a pod", func(t *testing.T) {
		f.pod(t, "holder", "a", 80)
		web := f.service(t, "web", 80)
		f.has(t, "web", "10.0.0.2")
		f.warned(t, web, reasonTaken, "pod default/holder (as its host port) on a (10.0.0.1)")
		f.removePod(t, "holder")
		f.has(t, "web", "10.0.0.1 10.0.0.2")
		f.pod(t, "late", "a", 80)
		// The Service was there first. That the pod was seen, the next one tells.
		f.service(t, "next", 443)
		f.has(t, "next", "10.0.0.1 10.0.0.2")
		f.has(t, "web", "10.0.0.1 10.0.0.2")
	})
	t.Run("a node port", func(t *testing.T) {
		f.service(t, "np", 7, func(s *corev1.Service) {
			s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30999
		})
		web := f.service(t, "web", 30999)
		f.pending(t, web, "Service default/np (as its node port)")
		f.remove(t, "np")
		f.has(t, "web", "10.0.0.1 10.0.0.2")
	})
	t.Run("an external IP", func(t *testing.T) {
		f.service(t, "ext", 80, func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalIPs = corev1.ServiceTypeClusterIP, []string{"10.0.0.1"}
		})
		web := f.service(t, "web", 80)
		f.has(t, "web", "10.0.0.2")
		f.warned(t, web, reasonTaken, "Service default/ext (as its external IP) on a")
		f.patch(t, "ext", `{"externalIPs":null}`)
		f.has(t, "web", "10.0.0.1 10.0.0.2")
	})
	t.Run("a port of the node", func(t *testing.T) {
		f.pending(t, f.service(t, "ssh", 22), "port 22/TCP is held by the node itself (SSH)")
		f.pending(t, f.service(t, "api", 6443), "choose another port")
	})
}

func (f *fixture) testNodes(t *testing.T) {
	f.service(t, "web", 80)
	f.has(t, "web", "10.0.0.1 10.0.0.2")
	f.setReady("b", corev1.ConditionUnknown)
	f.has(t, "web", "10.0.0.1")
	f.setReady("b", corev1.ConditionTrue)
	f.has(t, "web", "10.0.0.1 10.0.0.2")
	f.label("a", corev1.LabelNodeExcludeBalancers, "true")
	f.has(t, "web", "10.0.0.2")
	f.label("a", corev1.LabelNodeExcludeBalancers, "")
	f.has(t, "web", "10.0.0.1 10.0.0.2")
	f.label("b", labelEnable, "true")
	f.has(t, "web", "10.0.0.2")
	f.label("b", labelEnable, "")
	f.has(t, "web", "10.0.0.1 10.0.0.2")
	f.label("a", labelPool, "edge")
	f.service(t, "pooled", 443, func(s *corev1.Service) { s.Labels = map[string]string{labelPool: "edge"} })
	f.has(t, "pooled", "10.0.0.1")
	f.label("b", labelPool, "edge")
	f.has(t, "pooled", "10.0.0.1 10.0.0.2")
	f.label("a", labelPool, "")
	f.label("b", labelPool, "")
	f.has(t, "pooled", "")
}

// testForeign: a node that gives addresses which are not its own.
func (f *fixture) testForeign(t *testing.T) {
	f.node("foreign", map[string]string{labelPool: "foreign"}, internal("10.0.0.9"), internal("10.0.0.1"), internal("10.43.0.10"), internal("10.42.0.7"))
	f.says("foreign", false, free())
	f.service(t, "elsewhere", 80, func(s *corev1.Service) { s.Labels = map[string]string{labelPool: "foreign"} })
	f.has(t, "elsewhere", "10.0.0.9")
	if err := f.admin.CoreV1().Nodes().Delete(t.Context(), "foreign", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.has(t, "elsewhere", "")
}

func (f *fixture) testLocal(t *testing.T) {
	local := f.service(t, "local", 80, func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal })
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "local-by-hand", Labels: map[string]string{discoveryv1.LabelServiceName: "local"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.42.0.5"}, NodeName: ptr("a"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(true)}},
			{Addresses: []string{"10.42.1.5"}, NodeName: ptr("b"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(false)}},
		},
	}
	slicesOf := f.admin.DiscoveryV1().EndpointSlices(f.ns)
	slice, err := slicesOf.Create(t.Context(), slice, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.has(t, "local", "10.0.0.1")
	slice.Endpoints[1].Conditions.Ready = nil // ready, as far as anybody knows
	if slice, err = slicesOf.Update(t.Context(), slice, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.has(t, "local", "10.0.0.1 10.0.0.2")
	// A younger Service gets the nodes that are left, and the others when they come.
	f.service(t, "younger", 80)
	slice.Endpoints = slice.Endpoints[1:]
	if slice, err = slicesOf.Update(t.Context(), slice, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.has(t, "local", "10.0.0.2")
	f.has(t, "younger", "10.0.0.1")
	if err := slicesOf.Delete(t.Context(), slice.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.has(t, "local", "")
	f.has(t, "younger", "10.0.0.1 10.0.0.2")
	f.warned(t, local, reasonNowhere, "externalTrafficPolicy: Local") // after patience
}

func (f *fixture) testClasses(t *testing.T) {
	f.service(t, "other", 80, func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr("example.org/lb") })
	f.service(t, "ours", 80, func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr(class) })
	f.has(t, "ours", "10.0.0.1 10.0.0.2")
	f.has(t, "other", "")
	// What another load balancer wrote stays.
	patch := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"10.9.9.9"}]}}}`)
	if _, err := f.admin.CoreV1().Services(f.ns).Patch(t.Context(), "other", types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	// A class changes by way of another type, which clears the status.
	f.patch(t, "ours", `{"type":"ClusterIP"}`)
	f.has(t, "ours", "")
	f.patch(t, "ours", `{"type":"LoadBalancer","loadBalancerClass":"example.org/lb"}`)
	f.service(t, "next", 80)
	f.has(t, "next", "10.0.0.1 10.0.0.2")
	f.has(t, "ours", "")
	f.has(t, "other", "10.9.9.9")
}

func (f *fixture) pod(t *testing.T, name, node string, hostPort int32) {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, _ = f.admin.CoreV1().ServiceAccounts(f.ns).Create(t.Context(), account, metav1.CreateOptions{}) // the first pod's
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
		Name: "c", Image: "example.org/c:1", Ports: []corev1.ContainerPort{{ContainerPort: 8080, HostPort: hostPort}}}}}}
	if _, err := f.admin.CoreV1().Pods(f.ns).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.removePod(t, name) })
}

func (f *fixture) removePod(t *testing.T, name string) {
	t.Helper()
	now := int64(0)
	_ = f.admin.CoreV1().Pods(f.ns).Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: &now})
}
