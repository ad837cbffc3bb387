package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/test/harness"
)

const localPath = "local-storage.local-path"

const keeper = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: keeper}
spec:
  serviceName: keeper
  replicas: 1
  selector: {matchLabels: {app: keeper}}
  template:
    metadata: {labels: {app: keeper}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsUser: 12345, runAsGroup: 12345}
      containers:
      - name: c
        image: BUSYBOX
        command: [sh, -c, "date +%s%N >> /data/starts; mkdir -p /data/private && chmod 700 /data/private && echo secret > /data/private/f; while true; do sleep 1; done"]
        readinessProbe: {exec: {command: [test, -s, /data/private/f]}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 64Mi}}
`

// TestLocalStorage is a volume's life on the real thing: the default class, a pod of any
// user, a new pod with the old data, the component killed in between, and nothing left.
func TestLocalStorage(t *testing.T) {
	s := play(t)
	storage := s.node.Host.Path(filepath.Join(s.node.Host.DataDir, "storage"))
	component := waitComponent(t, within(t, 60*time.Second), s.node, localPath, harness.Component.Ready)
	if component.UID == 0 {
		t.Error("it runs as root")
	}
	s.apply(keeper)
	first := s.pods("app=keeper", 1)[0]
	claim, err := s.client.CoreV1().PersistentVolumeClaims(s.ns).Get(within(t, 10*time.Second), "data-keeper-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	volumes := s.client.CoreV1().PersistentVolumes()
	volume, err := volumes.Get(within(t, 10*time.Second), claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := volume.Spec.Local.Path
	if !strings.HasSuffix(dir, "/storage/"+volume.Name+"_"+s.ns+"_data-keeper-0") {
		t.Errorf("the volume is at %s", dir)
	}
	file := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(storage, filepath.Base(dir), name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	before := file("starts")

	if err := s.node.Host.Kill(component.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The kubelet needs nothing of it: the pod comes back with its data.
	s.kubectl("delete", "pod", "keeper-0")
	s.podWhen("keeper-0", func(p *corev1.Pod) bool { return p.UID != first.UID && podReady(p) })
	if after := file("starts"); !strings.HasPrefix(after, before) || after == before {
		t.Errorf("the data was %q, and is %q", before, after)
	}
	again := waitComponent(t, within(t, 60*time.Second), s.node, localPath, func(c harness.Component) bool {
		return c.Pid != component.Pid && c.Ready()
	})
	t.Logf("process %d, then %d", component.Pid, again.Pid)

	// Deleted while the component is away: what is to do is done when it is back. The files
	// are a user's that nobody else may read.
	if err := s.node.Host.Kill(again.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.kubectl("delete", "statefulset", "keeper")
	s.kubectl("delete", "pvc", "data-keeper-0", "--wait=false")
	if err := harness.WaitGone(within(t, 90*time.Second), volumes, volume.Name); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(storage)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if strings.Contains(entry.Name(), s.ns) || strings.HasPrefix(entry.Name(), ".") {
			t.Errorf("%s is left", entry.Name())
		}
	}
}

// TestLocalStorageTooBig: the scheduler knows how much is free.
func TestLocalStorageTooBig(t *testing.T) {
	s := play(t)
	waitComponent(t, within(t, 60*time.Second), s.node, localPath, harness.Component.Ready)
	s.apply(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: huge}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Ei}}
---
apiVersion: v1
kind: Pod
metadata: {name: huge}
spec:
  containers: [{name: c, image: BUSYBOX, command: [sleep, "1000"]}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: huge}}]
`)
	s.podWhen("huge", func(p *corev1.Pod) bool { return strings.Contains(podStory(p), "did not have enough free storage") })
	s.kubectl("delete", "pod", "huge", "--grace-period=0", "--force")
	s.kubectl("delete", "pvc", "huge")
}
