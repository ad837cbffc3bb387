package localpath

import (
	"context"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/keymutex"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/k3m-io/k3m/plugins/local-storage/local-path/pathpattern"
)

// crashed makes a claim's directory as a process does that ends before its
// PersistentVolume is in the API, and returns the path.
func (c *cluster) crashed(t *testing.T, w *work, claim *corev1.PersistentVolumeClaim) string {
	t.Helper()
	p := &provisioner{
		node: w.node, bases: w.bases, pattern: w.pattern, quotas: w.quotas, ledger: w.ledger, client: w.client, log: w.log,
		events: record.NewFakeRecorder(10), volumes: cache.NewStore(cache.MetaNamespaceKeyFunc),
		spaceChanged: func(bool) {}, busy: keymutex.NewHashed(1),
	}
	class, err := c.admin.StorageV1().StorageClasses().Get(t.Context(), className, metav1.GetOptions{})
	must(t, err)
	v, _, err := p.Provision(t.Context(), controller.ProvisionOptions{
		StorageClass: class, PVName: "pvc-" + string(claim.UID), PVC: claim, SelectedNodeName: w.node})
	must(t, err)
	there(t, v.Spec.Local.Path)
	return v.Spec.Local.Path
}

// TestCrashBetweenDirectoryAndVolume: what an earlier process has made and told nobody of
// is used when it is still wanted, and removed when it is not.
func TestCrashBetweenDirectoryAndVolume(t *testing.T) {
	c := newCluster(t, controlPlane(t))
	dir := t.TempDir()
	w := c.newWork(t, dir, pathpattern.Default)
	chosen := func(p *corev1.PersistentVolumeClaim) {
		p.Annotations = map[string]string{selectedNode: c.node.Name}
	}
	wanted := c.claim(t, "wanted", className, "1Mi", chosen)
	wantedPath := c.crashed(t, w, wanted)
	before, err := w.bases[0].volume(filepath.Base(wantedPath))
	must(t, err)
	defer before.Close()
	id, err := inodeOf(before)
	must(t, err)

	deleted := c.claim(t, "deleted", className, "1Mi", chosen)
	deletedPath := c.crashed(t, w, deleted)
	c.release(t, "deleted")
	until(t, "the claim is gone", func(ctx context.Context) (bool, string) {
		_, err := c.admin.CoreV1().PersistentVolumeClaims(c.ns).Get(ctx, "deleted", metav1.GetOptions{})
		return err != nil, ""
	})
	moved := c.claim(t, "moved", className, "1Mi", chosen)
	movedPath := c.crashed(t, w, moved)
	_, err = c.admin.CoreV1().PersistentVolumeClaims(c.ns).Patch(t.Context(), "moved", types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"`+selectedNode+`":"another-node"}}}`), metav1.PatchOptions{})
	must(t, err)

	// A claim is gone, and what is at its path now is another's: made by hand, say.
	foreign := c.claim(t, "foreign", className, "1Mi", chosen)
	foreignPath := c.crashed(t, w, foreign)
	must(t, w.bases[0].remove(t.Context(), filepath.Base(foreignPath)))
	keep := makeVolume(t, w.bases[0], "keep", "keep") // takes the inode's number, perhaps
	makeVolume(t, w.bases[0], "by-hand", filepath.Base(foreignPath))
	c.release(t, "foreign")

	r := run(t, c.newWork(t, dir, pathpattern.Default))
	v := c.bound(t, "wanted")
	after, err := r.bases[0].volume(filepath.Base(v.Spec.Local.Path))
	must(t, err)
	defer after.Close()
	if now, err := inodeOf(after); err != nil || now != id || v.Spec.Local.Path != wantedPath {
		t.Errorf("%s, %v, want %s, %v; %v", v.Spec.Local.Path, now, wantedPath, id, err)
	}
	until(t, "all is settled", func(context.Context) (bool, string) { return len(r.ledger.names()) == 0, "" })
	gone(t, deletedPath)
	gone(t, movedPath)
	there(t, keep)
	there(t, foreignPath)
	c.release(t, "wanted")
	c.volumeGone(t, v.Name)
}

// TestObjects: what a server applies is what the scheduler and users look for.
func TestObjects(t *testing.T) {
	c := newCluster(t, controlPlane(t))
	class, err := c.admin.StorageV1().StorageClasses().Get(t.Context(), className, metav1.GetOptions{})
	must(t, err)
	driver, err := c.admin.StorageV1().CSIDrivers().Get(t.Context(), class.Provisioner, metav1.GetOptions{})
	must(t, err)
	if !*driver.Spec.StorageCapacity || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer ||
		*class.ReclaimPolicy != corev1.PersistentVolumeReclaimDelete || class.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" {
		t.Errorf("%+v, %+v", class, driver.Spec)
	}
}
