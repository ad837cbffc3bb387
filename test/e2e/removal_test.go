package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// removalPods is how many pods TestRemoval has beside its special ones; K3M_E2E_PODS=200 is a
// day's worth.
func removalPods(t *testing.T) int {
	t.Helper()
	if text := os.Getenv("K3M_E2E_PODS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 6
}

// everyday is of everything that leaves something on a host.
const everyday = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: %d
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: BUSYBOX
        command: [sh, -c, "trap 'exit 0' TERM; sleep 36000 & wait"]
        resources: {limits: {memory: 32Mi}}
        volumeMounts:
        - {name: memory, mountPath: /memory}
        - {name: secret, mountPath: /secret}
        - {name: disk, mountPath: /disk}
      volumes:
      - {name: memory, emptyDir: {medium: Memory}}
      - {name: disk, emptyDir: {}}
      - {name: secret, secret: {secretName: planted}}
---
apiVersion: v1
kind: Pod
metadata: {name: hostport, labels: {app: special}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: echo, image: ECHO, ports: [{containerPort: 8080, hostPort: 8181}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: hostnetwork, labels: {app: special}}
spec:
  hostNetwork: true
  hostPID: true
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: BUSYBOX, command: [sleep, "36000"], volumeMounts: [{name: run, mountPath: /host, mountPropagation: Bidirectional}], securityContext: {privileged: true}}]
  volumes: [{name: run, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: cluster}
spec: {selector: {app: many}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: nodeport}
spec: {type: NodePort, selector: {app: many}, sessionAffinity: ClientIP, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: many}, ports: [{port: 8282}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: many}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: external}
spec: {type: ExternalName, externalName: example.org}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec:
  podSelector: {matchLabels: {app: many}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}}]}]
  egress: [{to: [{namespaceSelector: {}}]}]
`

// TestRemoval uses a node as one does in a day, has it killed, and removes it in each of the ways
// that there are; what the host was before the first start is what it has to be afterwards.
func TestRemoval(t *testing.T) {
	h := lab.NewHost(t, "removal")
	preload(t, h)
	node := h.Serve(t, "--kubelet-arg=max-pods=250")
	client, err := node.WaitReady(within(t, 60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, node: node, client: client, ns: "default"}
	many := removalPods(t)
	s.kubectl("create", "secret", "generic", "planted", "--from-literal=password="+plantedSecret)
	s.apply(fmt.Sprintf(everyday, many) + "---" + keeper)
	s.settled(t, many, nil)
	first, err := client.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}

	// A day: pods come and go, parts die.
	// kubectl would ask for one after another.
	if err := client.CoreV1().Pods(s.ns).DeleteCollection(within(t, time.Minute), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=many"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"cni.flannel", "runtime.containerd", "network-policy.nftables"} {
		c := waitComponent(t, within(t, 60*time.Second), node, id, harness.Component.Ready)
		if err := h.Kill(c.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	node.Kill9()
	node.Restart(t)
	if _, err := node.WaitReady(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
	s.settled(t, many, nil)
	containers := s.containers(t)

	t.Run("stop leaves the pods", func(t *testing.T) {
		good(t, h, []string{"stop"}, "stopping the server", "pods keep running")
		<-node.Done()
		if left := only(changes(t, h), "process: "); !strings.Contains(left, "shim") {
			t.Errorf("there run\n%s", left)
		}
	})
	t.Run("stop with the pods", func(t *testing.T) {
		start := time.Now()
		good(t, h, []string{"stop", "--kill-pods", "--grace=3s"}, "ended ", "removed their mounts")
		t.Logf("%d pods ended within %s", many+3, time.Since(start).Round(time.Millisecond))
		s.nothingButFiles(t)
		good(t, h, []string{"stop", "--kill-pods"}, "ended 0 pods") // nothing to do is no failure
	})
	t.Run("the pods come again", func(t *testing.T) {
		containers = s.again(t, many, containers)
		if starts := s.starts(t); starts < 2 {
			t.Errorf("the volume tells of %d starts", starts)
		}
	})
	t.Run("uninstalled but for the data", func(t *testing.T) {
		good(t, h, []string{"uninstall", "--yes", "--keep-data"}, "kept the cluster's state")
		<-node.Done()
		s.nothingButFiles(t)
		for _, gone := range []string{h.Kubeconfig, h.RunDir, filepath.Join(h.DataDir, "agent", "kubelet"), filepath.Join(h.DataDir, "components")} {
			if _, err := os.Stat(gone); err == nil {
				t.Errorf("%s is still there", gone)
			}
		}
	})
	t.Run("the cluster comes again", func(t *testing.T) {
		if err := h.LinkBundle(); err != nil {
			t.Fatal(err)
		}
		s.again(t, many, containers)
		again, err := s.client.CoreV1().Namespaces().Get(t.Context(), "kube-system", metav1.GetOptions{})
		if err != nil || again.UID != first.UID {
			t.Errorf("the cluster is %s, was %s: %v", again.UID, first.UID, err)
		}
		if starts := s.starts(t); starts < 3 {
			t.Errorf("the volume tells of %d starts", starts)
		}
	})
	t.Run("uninstalled after a crash half-way", func(t *testing.T) {
		// Core and components die at once, in the middle of a removal that had begun, and what
		// the components knew of themselves is gone.
		s.killAll(t)
		for _, dir := range []string{"components/cni.flannel", "components/network-policy.nftables", "server"} {
			if err := os.RemoveAll(filepath.Join(h.DataDir, dir)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(h.Kubeconfig); err != nil { // nothing tells any more whose it is
			t.Fatal(err)
		}
		// What an older release of a component made.
		for _, words := range [][]string{
			{"/sbin/ip", "link", "add", "old0", "type", "bridge"}, {"/sbin/ip", "link", "set", "old0", "alias", "k3m cni.of-an-older-release"},
			{"/usr/sbin/nft", "add", "table", "inet", "k3m-of-an-older-release"},
		} {
			if out, err := h.Command(within(t, 10*time.Second), words[0], words[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v: %s", words, err, out)
			}
		}
		out := good(t, h, []string{"uninstall", "--yes"}, "removed interface old0", "removed nftables table inet k3m-of-an-older-release", "volumes in", "stay")
		t.Log(out)
		volumes := filepath.Join(h.DataDir, "storage")
		if err := os.RemoveAll(volumes); err != nil { // the user's
			t.Fatal(err)
		}
		_ = os.Remove(h.DataDir) // which held nothing else
		if left := h.Leftovers(); len(left) > 0 {
			t.Errorf("left over:\n%s", strings.Join(left, "\n"))
		}
	})
}

// plantedSecret must not be in a support bundle.
const plantedSecret = "correct-horse-battery-staple-9"

// settled waits until all pods of everyday are ready, in other containers than before.
func (s *scene) settled(t *testing.T, many int, before []string) {
	t.Helper()
	err := harness.WaitAll(within(t, 5*time.Minute), s.client.CoreV1().Pods(s.ns), "", func(pods []*corev1.Pod) (bool, string) {
		for _, p := range pods {
			if !podReady(p) || slices.ContainsFunc(p.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return slices.Contains(before, c.ContainerID) }) {
				return false, p.Name + ": " + podStory(p)
			}
		}
		return len(pods) == many+3, fmt.Sprintf("there are %d pods", len(pods))
	})
	if err != nil {
		t.Fatalf("wait for all pods: %v", err)
	}
}

// containers are the IDs of those of the test's pods.
func (s *scene) containers(t *testing.T) []string {
	t.Helper()
	pods, err := s.client.CoreV1().Pods(s.ns).List(within(t, 30*time.Second), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			ids = append(ids, c.ContainerID)
		}
	}
	return ids
}

// again starts the server, and waits until all pods are ready in other containers than before:
// what the API says of them is older than the start.
func (s *scene) again(t *testing.T, many int, before []string) (containers []string) {
	t.Helper()
	s.node.Restart(t)
	client, err := s.node.WaitReady(within(t, 90*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s.client = client
	s.settled(t, many, before)
	return s.containers(t)
}

// starts counts those that the volume of keeper tells of.
func (s *scene) starts(t *testing.T) int {
	t.Helper()
	out, err := s.node.Kubectl(within(t, 30*time.Second), "-n", s.ns, "exec", "keeper-0", "--", "cat", "/data/starts")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(out, "\n")
}

func changes(t *testing.T, h *harness.Host) harness.Snapshot {
	t.Helper()
	now, err := h.Changes()
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// only are the lines with a beginning.
func only(s harness.Snapshot, prefix string) string {
	var lines []string
	for _, line := range s {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// nothingButFiles sees that the host is what it was before the first start, but for files.
func (s *scene) nothingButFiles(t *testing.T) {
	t.Helper()
	var left []string
	for _, line := range s.node.Host.Leftovers() {
		if !strings.HasPrefix(line, "file: ") {
			left = append(left, line)
		}
	}
	if len(left) > 0 {
		t.Errorf("left over:\n%s", strings.Join(left, "\n"))
	}
}

// killAll kills core and components; pods run on.
func (s *scene) killAll(t *testing.T) {
	t.Helper()
	all, err := s.node.Components(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s.node.Kill9()
	for _, c := range all {
		_ = s.node.Host.Kill(c.Pid, unix.SIGKILL) // it may have ended with the core
	}
}
