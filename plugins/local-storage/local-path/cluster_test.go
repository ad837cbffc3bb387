package localpath

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/plugins/local-storage/local-path/pathpattern"
	"github.com/k3m-io/k3m/test/clusterapi"
)

// eventually bounds what takes a moment, also on a busy machine.
const eventually = time.Minute

// cluster is a test's namespace on the shared control plane, with what a server keeps
// applied for the component.
type cluster struct {
	admin      kubernetes.Interface
	node       *corev1.Node
	kubeconfig string // the component's own, with exactly its rights
	ns         string
}

func newCluster(t *testing.T, api *clusterapi.API) *cluster {
	t.Helper()
	ctx := t.Context()
	c := &cluster{admin: api.Client}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: clusterapi.NodeName, Labels: map[string]string{corev1.LabelHostname: clusterapi.NodeName}}}
	node, err := c.admin.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err == nil {
		room := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1000"), corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("8Gi")}
		node.Status = corev1.NodeStatus{Capacity: room, Allocatable: room}
		node, err = c.admin.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	} else if apierrors.IsAlreadyExists(err) {
		node, err = c.admin.CoreV1().Nodes().Get(ctx, clusterapi.NodeName, metav1.GetOptions{})
	}
	must(t, err)
	c.node = node
	for _, raw := range objects() {
		var driver storagev1.CSIDriver
		var class storagev1.StorageClass
		must(t, json.Unmarshal(raw, &driver))
		if driver.Kind == "CSIDriver" {
			_, err = c.admin.StorageV1().CSIDrivers().Create(ctx, &driver, metav1.CreateOptions{})
		} else {
			must(t, json.Unmarshal(raw, &class))
			_, err = c.admin.StorageV1().StorageClasses().Create(ctx, &class, metav1.CreateOptions{})
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	c.kubeconfig, err = api.Identify(ctx, t.TempDir(), New().Info())
	must(t, err)
	ns, err := c.admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "storage-"}}, metav1.CreateOptions{})
	must(t, err)
	c.ns = ns.Name
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := c.admin.CoreV1().ServiceAccounts(c.ns).Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return c
}

// component is one run of the component's work.
type component struct {
	*work
	cancel context.CancelFunc
	done   chan error
}

// newWork is what Run makes of a configuration, with the component's own identity.
func (c *cluster) newWork(t *testing.T, dir, text string) *work {
	t.Helper()
	p, err := pathpattern.Parse(text)
	must(t, err)
	w := &work{
		log: hclog.New(&hclog.LoggerOptions{Output: t.Output(), Level: hclog.Debug}), node: c.node.Name, nodeObject: c.node,
		bases: []*base{{path: filepath.Join(dir, "storage")}}, pattern: p, quotas: kernelQuotas{},
		started: func(*work) {}, ready: func() {},
	}
	must(t, w.bases[0].prepare())
	w.ledger, err = openLedger(dir)
	must(t, err)
	w.client, err = newClient(c.kubeconfig, func() {})
	must(t, err)
	return w
}

func run(t *testing.T, w *work) *component {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, ready := &component{work: w, cancel: cancel, done: make(chan error, 1)}, make(chan struct{}, 1)
	w.ready = func() {
		select {
		case ready <- struct{}{}:
		default:
		}
	}
	go func() { r.done <- w.run(ctx); close(r.done) }()
	t.Cleanup(func() { r.stop(t) })
	select {
	case <-ready:
	case err := <-r.done:
		t.Fatalf("it ended: %v", err)
	case <-time.After(eventually):
		t.Fatal("it was never ready")
	}
	return r
}

func (r *component) stop(t *testing.T) {
	r.cancel()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func (r *component) path(elements ...string) string {
	return filepath.Join(append([]string{r.bases[0].path}, elements...)...)
}

// until waits for something that has no better event than that it is so.
func until(t *testing.T, what string, is func(ctx context.Context) (bool, string)) {
	t.Helper()
	last := ""
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, eventually, true, func(ctx context.Context) (ok bool, _ error) {
		ok, last = is(ctx)
		return ok, nil
	})
	if err != nil {
		t.Fatalf("%s: %v; %s", what, err, last)
	}
}

func (c *cluster) claim(t *testing.T, name, class, size string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
	}}
	for _, c := range change {
		c(claim)
	}
	claim, err := c.admin.CoreV1().PersistentVolumeClaims(c.ns).Create(t.Context(), claim, metav1.CreateOptions{})
	must(t, err)
	return claim
}

// pod uses a claim. It gets a node and never runs, as there is no kubelet.
func (c *cluster) pod(t *testing.T, claim string) {
	t.Helper()
	_, err := c.admin.CoreV1().Pods(c.ns).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: claim}, Spec: corev1.PodSpec{
		Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		Containers:  []corev1.Container{{Name: "c", Image: "example.org/c:1"}},
		Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}},
	}}, metav1.CreateOptions{})
	must(t, err)
}

// bound waits until a claim has its volume, and returns that.
func (c *cluster) bound(t *testing.T, claim string) *corev1.PersistentVolume {
	t.Helper()
	var name string
	until(t, "claim "+claim+" is bound", func(ctx context.Context) (bool, string) {
		p, err := c.admin.CoreV1().PersistentVolumeClaims(c.ns).Get(ctx, claim, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		name = p.Spec.VolumeName
		return p.Status.Phase == corev1.ClaimBound, c.story(ctx)
	})
	volume, err := c.admin.CoreV1().PersistentVolumes().Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	return volume
}

// use makes a claim and a pod that uses it, and returns the volume.
func (c *cluster) use(t *testing.T, name, class, size string) *corev1.PersistentVolume {
	t.Helper()
	c.claim(t, name, class, size)
	c.pod(t, name)
	return c.bound(t, name)
}

// release deletes the claim and its pod.
func (c *cluster) release(t *testing.T, claim string) {
	t.Helper()
	now := int64(0)
	if err := c.admin.CoreV1().Pods(c.ns).Delete(t.Context(), claim, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	must(t, c.admin.CoreV1().PersistentVolumeClaims(c.ns).Delete(t.Context(), claim, metav1.DeleteOptions{}))
}

func (c *cluster) volumeGone(t *testing.T, name string) {
	t.Helper()
	until(t, "volume "+name+" is gone", func(ctx context.Context) (bool, string) {
		v, err := c.admin.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprintf("%v, %+v", err, v)
	})
}

// event waits for an Event about an object, with a reason and words in it.
func (c *cluster) event(t *testing.T, name, reason, words string) {
	t.Helper()
	until(t, fmt.Sprintf("event %s about %s with %q", reason, name, words), func(ctx context.Context) (bool, string) {
		events, err := c.admin.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name + ",reason=" + reason})
		if err != nil {
			return false, err.Error()
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, words) {
				return true, ""
			}
		}
		return false, c.story(ctx)
	})
}

// story is what the Events of the namespace tell, for failures.
func (c *cluster) story(ctx context.Context) string {
	events, err := c.admin.CoreV1().Events(c.ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	var lines []string
	for _, e := range events.Items {
		lines = append(lines, e.InvolvedObject.Name+": "+e.Reason+": "+e.Message)
	}
	return strings.Join(lines, "\n")
}

func (c *cluster) capacities(ctx context.Context) (map[string]*storagev1.CSIStorageCapacity, error) {
	list, err := c.admin.StorageV1().CSIStorageCapacities("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	found := map[string]*storagev1.CSIStorageCapacity{}
	for i := range list.Items {
		found[list.Items[i].StorageClassName] = &list.Items[i]
	}
	return found, nil
}

func (c *cluster) wantCapacity(t *testing.T, class string) {
	t.Helper()
	until(t, "free space for class "+class+" is published", func(ctx context.Context) (bool, string) {
		found, err := c.capacities(ctx)
		if err != nil || found[class] == nil {
			return false, fmt.Sprintf("%v, %v", err, found)
		}
		return found[class].Capacity.Value() > 0 && found[class].NodeTopology.MatchLabels[corev1.LabelHostname] == c.node.Name, ""
	})
}
