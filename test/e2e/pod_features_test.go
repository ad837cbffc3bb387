package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/k3m-io/k3m/test/harness"
)

const configuredPod = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue, app.conf: "level = 3\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: credentials}
stringData: {password: correct horse}
---
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {tier: front}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: prepare
    image: BUSYBOX
    command: [sh, -c, "echo prepared > /work/state"]
    volumeMounts: [{name: work, mountPath: /work}]
  containers:
  - name: echo
    image: ECHO
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: credentials, key: password}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    volumeMounts:
    - {name: work, mountPath: /work}
    - {name: settings, mountPath: /settings}
    - {name: credentials, mountPath: /credentials}
    - {name: about, mountPath: /about}
    - {name: token, mountPath: /token}
  volumes:
  - {name: work, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: credentials, secret: {secretName: credentials}}
  - name: about
    downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
  - name: token
    projected:
      sources: [{serviceAccountToken: {path: token, audience: vault.test, expirationSeconds: 3600}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: see-pods}
rules: [{apiGroups: [""], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: see-pods}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: see-pods}
subjects: [{kind: ServiceAccount, name: default}]
`

func TestPodConfiguration(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(configuredPod)
	base := "http://" + s.pod("echo").Status.PodIP + ":8080"
	ask := func(path string) string { return s.get(s.node.Host.HTTP(), base+path) }

	for _, c := range []struct{ name, path, want string }{
		{"ConfigMap in the environment", "/env?name=COLOUR", "blue"},
		{"Secret in the environment", "/env?name=PASSWORD", "correct horse"},
		{"downward API in the environment", "/env?name=NODE", s.node.Name},
		{"ConfigMap as files", "/file?path=/settings/app.conf", "level = 3\n"},
		{"Secret as files", "/file?path=/credentials/password", "correct horse"},
		{"downward API as files", "/file?path=/about/labels", `tier="front"`},
		{"init container", "/file?path=/work/state", "prepared\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ask(c.path); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("projected token has its audience", func(t *testing.T) {
		parts := strings.Split(ask("/file?path=/token/token"), ".")
		if len(parts) != 3 {
			t.Fatalf("no JWT but %d parts", len(parts))
		}
		raw, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		var claims struct {
			Audience []string `json:"aud"`
			Subject  string   `json:"sub"`
		}
		if err := json.Unmarshal(raw, &claims); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(claims.Audience) != "[vault.test]" || claims.Subject != "system:serviceaccount:"+s.ns+":default" {
			t.Errorf("claims are %+v", claims)
		}
	})
	t.Run("token works at the API from inside", func(t *testing.T) {
		var list corev1.PodList
		if err := json.Unmarshal([]byte(ask("/api?path=/api/v1/namespaces/"+s.ns+"/pods")), &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 1 || list.Items[0].Name != "echo" {
			t.Errorf("the pod sees %d pods", len(list.Items))
		}
	})
	t.Run("token gives no more than its role", func(t *testing.T) {
		body, err := harness.Get(within(t, 10*time.Second), s.node.Host.HTTP(), base+"/api?path=/api/v1/namespaces/"+s.ns+"/secrets")
		if err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
			t.Errorf("got %v %s", err, body)
		}
	})
}

const probedPod = `
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: echo
    image: ECHO
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {httpGet: {path: /live, port: 8080}, periodSeconds: 1, failureThreshold: 2}
`

func TestProbes(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(probedPod)
	pod := s.pod("echo")
	base := "http://" + pod.Status.PodIP + ":8080"
	post(t, s.node.Host.HTTP(), base+"/ready")
	s.podWhen("echo", func(p *corev1.Pod) bool { return !podReady(p) })

	post(t, s.node.Host.HTTP(), base+"/live")
	again := s.podWhen("echo", func(p *corev1.Pod) bool {
		return podReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if again.Status.PodIP != pod.Status.PodIP {
		t.Errorf("a restarted container changed the pod's IP from %s to %s", pod.Status.PodIP, again.Status.PodIP)
	}
}

const limitedPod = `
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: BUSYBOX
    command: [sleep, "3600"]
    resources:
      requests: {memory: 32Mi, cpu: 50m}
      limits: {memory: 64Mi, cpu: 500m}
  - name: greedy
    image: BUSYBOX
    command: [sh, -c, "test -e /tmp/again && sleep 3600; touch /tmp/again; tail -c 100m /dev/zero"]
    volumeMounts: [{name: tmp, mountPath: /tmp}]
    resources: {limits: {memory: 32Mi}}
  volumes: [{name: tmp, emptyDir: {}}]
`

func TestResourceLimits(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(limitedPod)
	pod := s.podWhen("limited", func(p *corev1.Pod) bool {
		return podReady(p) && p.Status.ContainerStatuses[0].RestartCount+p.Status.ContainerStatuses[1].RestartCount > 0
	})
	t.Run("a container over its limit was killed", func(t *testing.T) {
		for _, c := range pod.Status.ContainerStatuses {
			last := c.LastTerminationState.Terminated
			if c.Name == "greedy" && (last == nil || last.Reason != "OOMKilled") {
				t.Errorf("it ended by %+v", last)
			}
			if c.Name == "shell" && c.RestartCount != 0 {
				t.Error("its neighbour was restarted")
			}
		}
	})
	t.Run("limits are in the cgroup", func(t *testing.T) {
		var id string
		for _, c := range pod.Status.ContainerStatuses {
			if c.Name == "shell" {
				_, id, _ = strings.Cut(c.ContainerID, "://")
			}
		}
		for _, c := range []struct{ v2, v1, want string }{
			{"memory.max", "memory/memory.limit_in_bytes", "67108864"},
			{"cpu.max", "cpu/cpu.cfs_quota_us", "50000"},
		} {
			value, err := containerCgroupFile(s.node.Host, id, c.v2, c.v1)
			if err != nil {
				t.Error(err)
			} else if got, _, _ := strings.Cut(value, " "); strings.TrimSpace(got) != c.want {
				t.Errorf("%s or %s is %q, want %s", c.v2, c.v1, value, c.want)
			}
		}
	})
}

// containerCgroupFile reads a file of a container's cgroup, which must lie below the
// node's own cgroup.
func containerCgroupFile(h *harness.Host, id, v2, v1 string) (string, error) {
	hierarchy, file := "", v2
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		hierarchy, file = filepath.Split(v1)
	}
	top := filepath.Join("/sys/fs/cgroup", hierarchy, h.Cgroup(), "kubepods")
	var found string
	harness.Walk(top, func(path string, e os.DirEntry) error {
		if e.IsDir() && strings.Contains(e.Name(), id) {
			found = path
		}
		return nil
	})
	if found == "" {
		return "", fmt.Errorf("container %s has no cgroup below %s", id, top)
	}
	text, err := os.ReadFile(filepath.Join(found, file))
	return string(text), err
}

const networkPods = `
apiVersion: v1
kind: Pod
metadata: {name: host-port}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: echo, image: ECHO, ports: [{containerPort: 8080, hostPort: 18080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host-network}
spec:
  terminationGracePeriodSeconds: 1
  hostNetwork: true
  containers:
  - {name: echo, image: ECHO, env: [{name: PORT, value: "18081"}]}
`

func TestPodNetwork(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(networkPods)
	pod, hostNet := s.pod("host-port"), s.pod("host-network")
	node := s.node.Host.Addr.String()

	t.Run("host port from outside", func(t *testing.T) {
		if body := s.get(lab.Switch.HTTP(), "http://"+node+":18080"); body != "host-port" {
			t.Errorf("got %q", body)
		}
	})
	t.Run("host port keeps the client's address", func(t *testing.T) {
		if body := s.get(lab.Switch.HTTP(), "http://"+node+":18080/client"); body != harness.SwitchAddr.String() {
			t.Errorf("the pod sees %q", body)
		}
	})
	t.Run("pod of the host's network", func(t *testing.T) {
		if body := s.get(lab.Switch.HTTP(), "http://"+node+":18081"); body != s.node.Name || hostNet.Status.PodIP != node {
			t.Errorf("got %q at %s", body, hostNet.Status.PodIP)
		}
	})
	t.Run("pod reaches the outside with the node's address", func(t *testing.T) {
		url := outsideServer(t)
		if body := s.get(s.node.Host.HTTP(), "http://"+pod.Status.PodIP+":8080/fetch?url="+url); body != node {
			t.Errorf("the outside sees %q, want %s", body, node)
		}
	})
	t.Run("pod reaches itself through its host port", func(t *testing.T) {
		_, err := eventually(within(t, 20*time.Second), func(ctx context.Context) (string, error) {
			return harness.Get(ctx, s.node.Host.HTTP(), "http://"+pod.Status.PodIP+":8080/fetch?url=http://"+node+":18080/")
		})
		if err != nil {
			t.Error(err)
		}
	})
}
