package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

const balancedPods = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 1
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: echo, image: ECHO}]
`

// balanced is a Service of type LoadBalancer for the pods of balancedPods.
func balanced(name string, port int, more string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %s}
spec:
  type: LoadBalancer
  selector: {app: echo}
  ports: [{port: %d, targetPort: 8080}]
  %s
`, name, port, more)
}

// The ports that the tests of this file take on the shared node, which others don't.
const (
	portCluster = 18001 + iota
	portLocal
	portTwice
	portOfProcess
	portOfPod
	portKept
)

func TestLoadBalancer(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(balancedPods)
	s.pods("app=echo", 1)
	node, outside := s.node.Host.Addr.String(), lab.Switch.HTTP()
	url := func(port int) string { return fmt.Sprintf("http://%s:%d", node, port) }

	t.Run("traffic from outside", func(t *testing.T) {
		s := s.as(t)
		s.apply(balanced("web", portCluster, ""))
		s.ingress("web", node)
		if body := s.get(outside, url(portCluster)); !strings.HasPrefix(body, "echo-") {
			t.Errorf("a pod answers %q", body)
		}
		if body := s.get(s.node.Host.HTTP(), url(portCluster)); !strings.HasPrefix(body, "echo-") {
			t.Errorf("from the node itself, a pod answers %q", body)
		}
	})
	t.Run("the client's address", func(t *testing.T) {
		s := s.as(t)
		s.apply(balanced("local", portLocal, "externalTrafficPolicy: Local"))
		s.ingress("local", node)
		if got := s.get(outside, url(portLocal)+"/client"); got != harness.SwitchAddr.String() {
			t.Errorf("the pod sees the client %s, not %s", got, harness.SwitchAddr)
		}
	})
	t.Run("two Services on one port", func(t *testing.T) {
		s := s.as(t)
		s.apply(balanced("a-first", portTwice, ""))
		s.ingress("a-first", node)
		s.apply(balanced("b-second", portTwice, ""))
		s.warned("b-second", "PortTaken", fmt.Sprintf("port %d/TCP is held by Service %s/a-first on %s (%s)", portTwice, s.ns, s.node.Name, node))
		s.ingress("b-second", "")
		s.kubectl("delete", "service", "a-first")
		start := time.Now()
		s.ingress("b-second", node)
		t.Logf("the second has the address %s after the deletion of the first", time.Since(start).Round(time.Millisecond))
		s.get(outside, url(portTwice))
	})
	t.Run("a port of a process of the host", func(t *testing.T) {
		s := s.as(t)
		ctx, stop := context.WithCancel(within(t, 60*time.Second))
		defer stop()
		holder := s.node.Host.Command(ctx, "/bin/busybox", "nc", "-l", "-p", fmt.Sprint(portOfProcess))
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		s.listening(portOfProcess)
		s.apply(balanced("held", portOfProcess, ""))
		s.warned("held", "PortTaken", fmt.Sprintf("port %d/TCP is held by process busybox (pid ", portOfProcess))
		s.ingress("held", "")
		stop()
		_ = holder.Wait() // killed
		start := time.Now()
		s.ingress("held", node)
		t.Logf("the Service has the address %s after the end of the process", time.Since(start).Round(time.Millisecond))
		s.get(outside, url(portOfProcess))
	})
	t.Run("a port of a pod", func(t *testing.T) {
		s := s.as(t)
		s.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: holder}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: echo, image: ECHO, ports: [{containerPort: 8080, hostPort: %d}]}]
`, portOfPod))
		s.pod("holder")
		s.apply(balanced("behind", portOfPod, ""))
		s.warned("behind", "PortTaken", "is held by pod "+s.ns+"/holder (as its host port)")
		s.ingress("behind", "")
		if got := s.get(outside, url(portOfPod)); got != "holder" {
			t.Errorf("%s answers on the pod's host port", got)
		}
		s.kubectl("delete", "pod", "holder")
		s.ingress("behind", node)
		s.get(outside, url(portOfPod))
	})
	t.Run("ports of the node", func(t *testing.T) {
		s := s.as(t)
		for name, port := range map[string]int{"ssh": 22, "api": 6443, "kubelet": 10250} {
			s.apply(balanced(name, port, ""))
			s.warned(name, "PortTaken", "is held by the node itself")
			s.ingress(name, "")
		}
		if _, err := s.client.Discovery().ServerVersion(); err != nil {
			t.Errorf("the API: %v", err)
		}
	})
	t.Run("kill -9 of the component", func(t *testing.T) {
		s := s.as(t)
		s.apply(balanced("kept", portKept, ""))
		s.ingress("kept", node)
		s.get(outside, url(portKept))
		before := s.service("kept")
		asking := ask(t, outside, url(portKept))
		ctx := within(t, pluginBackLimit)
		dead := s.node.Component(t, ctx, "servicelb.nodeip")
		if err := s.node.Host.Kill(dead.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitComponent(t, ctx, s.node, "servicelb.nodeip", func(c harness.Component) bool { return c.Pid != dead.Pid && c.Ready() })
		report := asking.stop()
		if len(report.failures) > 0 {
			t.Errorf("%d of %d requests failed: %v", len(report.failures), report.asked, report.failures)
		}
		if after := s.service("kept"); after.ResourceVersion != before.ResourceVersion {
			t.Errorf("the Service was written meanwhile: %v", after.ManagedFields)
		}
	})
	t.Run("no rights, no capabilities", func(t *testing.T) {
		c := s.node.Component(t, within(t, 10*time.Second), "servicelb.nodeip")
		status := procStatus(t, s.node.Host, c.Pid)
		if status["CapEff"] != "0000000000000000" || c.UID == 0 {
			t.Errorf("it runs as %d with the capabilities %s", c.UID, status["CapEff"])
		}
	})
}

// as is the scene in a subtest.
func (s *scene) as(t *testing.T) *scene {
	return &scene{T: t, node: s.node, client: s.client, ns: s.ns}
}

func (s *scene) service(name string) *corev1.Service {
	s.Helper()
	svc, err := s.client.CoreV1().Services(s.ns).Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return svc
}

// ingress waits until a Service has the address as its only one, or, with "", none.
func (s *scene) ingress(name, address string) {
	s.Helper()
	err := harness.Wait(within(s.T, 30*time.Second), s.client.CoreV1().Services(s.ns), name, func(svc *corev1.Service) (bool, string) {
		var got []string
		for _, i := range svc.Status.LoadBalancer.Ingress {
			got = append(got, i.IP)
		}
		return strings.Join(got, " ") == address, fmt.Sprintf("its addresses are %v", got)
	})
	if err != nil {
		s.Fatalf("wait for Service %s to have the address %q: %v", name, address, err)
	}
}

// warned waits for an Event about a Service.
func (s *scene) warned(service, reason, words string) {
	s.Helper()
	_, err := harness.WaitAny(within(s.T, 30*time.Second), s.client.CoreV1().Events(s.ns), "", func(e *corev1.Event) (bool, string) {
		return e.InvolvedObject.Kind == "Service" && e.InvolvedObject.Name == service && e.Reason == reason && strings.Contains(e.Message, words),
			fmt.Sprintf("%s: %s: %s", e.InvolvedObject.Name, e.Reason, e.Message)
	})
	if err != nil {
		s.Fatalf("wait for an Event about Service %s that says %q: %v", service, words, err)
	}
}

// listening waits until a process of the host listens on a port.
func (s *scene) listening(port int) {
	s.Helper()
	_, err := eventually(within(s.T, 10*time.Second), func(context.Context) (struct{}, error) {
		for _, l := range s.node.Host.Listening(s.T) {
			if int(l.Addr.Port()) == port {
				return struct{}{}, nil
			}
		}
		return struct{}{}, fmt.Errorf("nobody listens on port %d", port)
	})
	if err != nil {
		s.Fatal(err)
	}
}
