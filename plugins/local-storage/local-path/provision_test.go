package localpath

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/local-storage/local-path/pathpattern"
)

// TestClaims are claims against a real API, its controllers and its scheduler.
func TestClaims(t *testing.T) {
	api := controlPlane(t)
	c := newCluster(t, api)
	r := run(t, c.newWork(t, t.TempDir(), "{{ .PVC.Namespace }}/{{ .PVC.Name }}"))

	t.Run("a claim gets a directory, which goes with it", func(t *testing.T) {
		v := c.use(t, "data", className, "16Mi")
		dir := r.path(c.ns, "data")
		if v.Spec.Local == nil || v.Spec.Local.Path != dir || v.Annotations[capacityAnnotation] == "" {
			t.Errorf("%+v %v", v.Spec, v.Annotations)
		}
		st, err := os.Stat(dir)
		if err != nil || st.Mode().Perm() != volumeMode {
			t.Errorf("%v, %v", st, err)
		}
		if v.Annotations[capacityAnnotation] == notEnforced {
			c.event(t, "data", reasonNotEnforced, "not enforced on node "+c.node.Name)
		}
		must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600))
		until(t, "the metrics know it", func(ctx context.Context) (bool, string) {
			p, text := &plugin{}, strings.Builder{}
			p.running.Store(r.work)
			must(t, p.WriteMetrics(ctx, &text))
			at := fmt.Sprintf("{path=%q} ", r.bases[0].path)
			return strings.Contains(text.String(), "k3m_local_path_volumes"+at+"1\n") &&
				strings.Contains(text.String(), "k3m_local_path_claimed_bytes"+at+"16777216\n") &&
				strings.Contains(text.String(), "k3m_local_path_free_bytes"+at), text.String()
		})
		c.release(t, "data")
		c.volumeGone(t, v.Name)
		gone(t, dir)
		until(t, "the ledger is empty", func(context.Context) (bool, string) { return len(r.ledger.names()) == 0, "" })
	})

	t.Run("what is retained stays, and its place is not given away", func(t *testing.T) {
		retain, binding := corev1.PersistentVolumeReclaimRetain, storagev1.VolumeBindingWaitForFirstConsumer
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "kept"}, Provisioner: provisionerName, ReclaimPolicy: &retain, VolumeBindingMode: &binding}
		_, err := api.Client.StorageV1().StorageClasses().Create(t.Context(), class, metav1.CreateOptions{})
		must(t, err)
		c.wantCapacity(t, "kept")
		v := c.use(t, "kept", "kept", "16Mi")
		file := r.path(c.ns, "kept", "f")
		must(t, os.WriteFile(file, []byte("x"), 0o600))
		c.release(t, "kept")
		until(t, "the volume is released", func(ctx context.Context) (bool, string) {
			now, err := api.Client.CoreV1().PersistentVolumes().Get(ctx, v.Name, metav1.GetOptions{})
			return err == nil && now.Status.Phase == corev1.VolumeReleased, ""
		})
		until(t, "the claim is gone", func(ctx context.Context) (bool, string) {
			_, err := api.Client.CoreV1().PersistentVolumeClaims(c.ns).Get(ctx, "kept", metav1.GetOptions{})
			return err != nil, ""
		})
		c.claim(t, "kept", className, "1Mi")
		c.pod(t, "kept")
		c.event(t, "kept", reasonFailed, "there is something of this name already")
		there(t, file)
		c.release(t, "kept")
		must(t, api.Client.CoreV1().PersistentVolumes().Delete(t.Context(), v.Name, metav1.DeleteOptions{}))
		c.volumeGone(t, v.Name)
		there(t, file)
	})

	t.Run("a volume that is deleted before its claim leaves nothing", func(t *testing.T) {
		v := c.use(t, "reverse", className, "1Mi")
		must(t, api.Client.CoreV1().PersistentVolumes().Delete(t.Context(), v.Name, metav1.DeleteOptions{}))
		c.release(t, "reverse")
		c.volumeGone(t, v.Name)
		gone(t, r.path(c.ns, "reverse"))
	})

	t.Run("the scheduler avoids a node that is too full", func(t *testing.T) {
		c.wantCapacity(t, className)
		c.claim(t, "huge", className, "4Ei")
		c.pod(t, "huge")
		until(t, "the pod is not scheduled", func(ctx context.Context) (bool, string) {
			pod, err := api.Client.CoreV1().Pods(c.ns).Get(ctx, "huge", metav1.GetOptions{})
			must(t, err)
			for _, condition := range pod.Status.Conditions {
				if strings.Contains(condition.Message, "did not have enough free storage") {
					return true, ""
				}
			}
			return false, c.story(ctx)
		})
		c.release(t, "huge")
	})

	t.Run("a claim that does not fit goes back to the scheduler", func(t *testing.T) {
		// As if the scheduler had acted on an old figure.
		c.claim(t, "late", className, "4Ei", func(p *corev1.PersistentVolumeClaim) {
			p.Annotations = map[string]string{selectedNode: c.node.Name}
		})
		c.event(t, "late", reasonFailed, "not enough free space on node "+c.node.Name+": the claim wants 4Ei, and ")
		until(t, "the choice is taken back", func(ctx context.Context) (bool, string) {
			p, err := api.Client.CoreV1().PersistentVolumeClaims(c.ns).Get(ctx, "late", metav1.GetOptions{})
			return err == nil && p.Annotations[selectedNode] == "", ""
		})
		c.release(t, "late")
	})

	t.Run("what a directory can't be is refused in words", func(t *testing.T) {
		for name, change := range map[string]struct {
			change func(*corev1.PersistentVolumeClaim)
			words  string
		}{
			"shared": {func(p *corev1.PersistentVolumeClaim) {
				p.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
			}, "ReadWriteMany is not possible"},
			"selecting": {func(p *corev1.PersistentVolumeClaim) {
				p.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
			}, "leave it out"},
			"block": {func(p *corev1.PersistentVolumeClaim) {
				mode := corev1.PersistentVolumeBlock
				p.Spec.VolumeMode = &mode
			}, "block"},
		} {
			c.claim(t, name, className, "1Mi", change.change)
			c.pod(t, name)
			c.event(t, name, reasonFailed, change.words)
			c.release(t, name)
		}
	})

	t.Run("a link in place of a volume leads nowhere", func(t *testing.T) {
		v := c.use(t, "linked", className, "1Mi")
		outside := t.TempDir()
		precious := filepath.Join(outside, "precious")
		must(t, os.WriteFile(precious, nil, 0o600))
		must(t, os.Remove(v.Spec.Local.Path))
		must(t, os.Symlink(outside, v.Spec.Local.Path))
		c.release(t, "linked")
		// What can't be opened as a directory is not removed either: someone should look.
		c.event(t, v.Name, "VolumeFailedDelete", "open "+v.Spec.Local.Path)
		there(t, precious)
		must(t, os.Remove(v.Spec.Local.Path))
		c.volumeGone(t, v.Name)
	})

	t.Run("a volume that says another path is left alone", func(t *testing.T) {
		outside := t.TempDir()
		v := c.use(t, "honest", className, "1Mi")
		forged := v.DeepCopy()
		forged.ObjectMeta = metav1.ObjectMeta{Name: "forged", Labels: v.Labels, Annotations: v.Annotations}
		forged.Spec.Local.Path = outside
		forged.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: c.ns, Name: "nobody", UID: "no-such"}
		_, err := api.Client.CoreV1().PersistentVolumes().Create(t.Context(), forged, metav1.CreateOptions{})
		must(t, err)
		c.event(t, "forged", "VolumeFailedDelete", "in none of the node's directories")
		// Around another volume.
		around := forged.DeepCopy()
		around.ObjectMeta = metav1.ObjectMeta{Name: "around", Labels: v.Labels, Annotations: v.Annotations}
		around.Spec.Local.Path = filepath.Dir(v.Spec.Local.Path)
		_, err = api.Client.CoreV1().PersistentVolumes().Create(t.Context(), around, metav1.CreateOptions{})
		must(t, err)
		c.event(t, "around", "VolumeFailedDelete", "would lie in each other")
		there(t, outside)
		there(t, v.Spec.Local.Path)
		for _, name := range []string{"forged", "around"} {
			_, err := api.Client.CoreV1().PersistentVolumes().Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			must(t, err)
			must(t, api.Client.CoreV1().PersistentVolumes().Delete(t.Context(), name, metav1.DeleteOptions{}))
		}
		c.release(t, "honest")
		c.volumeGone(t, v.Name)
	})

	t.Run("without quotas a volume does not grow, and says so", func(t *testing.T) {
		v := c.use(t, "growing", className, "1Mi")
		if v.Annotations[capacityAnnotation] == enforced {
			t.Skip("this file system has quotas")
		}
		must(t, c.request(t, "growing", "2Mi"))
		c.event(t, "growing", reasonNotResized, "grows only where its size is enforced")
		c.release(t, "growing")
		c.volumeGone(t, v.Name)
	})

	t.Run("what is published goes when it stops", func(t *testing.T) {
		r.stop(t)
		found, err := c.capacities(t.Context())
		if err != nil || len(found) != 0 {
			t.Errorf("%v, %v", found, err)
		}
	})
}

// request asks for another size.
func (c *cluster) request(t *testing.T, claim, size string) error {
	t.Helper()
	_, err := c.admin.CoreV1().PersistentVolumeClaims(c.ns).Patch(t.Context(), claim, types.MergePatchType,
		[]byte(`{"spec":{"resources":{"requests":{"storage":"`+size+`"}}}}`), metav1.PatchOptions{})
	return err
}

// rememberedQuotas stand in for the kernel's, which the machines that this is tested on
// may lack: what is tested with them is what the API is told. quota_test.go has the real
// ones.
type rememberedQuotas struct{ limits chan int64 }

func (rememberedQuotas) serve(*os.File) error                        { return nil }
func (rememberedQuotas) project(*os.File) (uint32, error)            { return firstProject, nil }
func (rememberedQuotas) forget(*os.File, uint32) error               { return nil }
func (q rememberedQuotas) limit(_ *os.File, _ string, b int64) error { q.limits <- b; return nil }

func TestGrow(t *testing.T) {
	c := newCluster(t, controlPlane(t))
	w := c.newWork(t, t.TempDir(), pathpattern.Default)
	q := rememberedQuotas{make(chan int64, 10)}
	w.quotas = q
	run(t, w)
	v := c.use(t, "growing", className, "1Mi")
	if limit := <-q.limits; limit != 1<<20 || v.Annotations[capacityAnnotation] != enforced {
		t.Errorf("%d, %v", limit, v.Annotations)
	}
	must(t, c.request(t, "growing", "3Mi"))
	c.event(t, "growing", reasonResized, "3Mi")
	if limit := <-q.limits; limit != 3<<20 {
		t.Errorf("%d", limit)
	}
	wanted := resource.MustParse("3Mi")
	claim, err := c.admin.CoreV1().PersistentVolumeClaims(c.ns).Get(t.Context(), "growing", metav1.GetOptions{})
	must(t, err)
	v, err = c.admin.CoreV1().PersistentVolumes().Get(t.Context(), v.Name, metav1.GetOptions{})
	must(t, err)
	if claim.Status.Capacity.Storage().Cmp(wanted) != 0 || v.Spec.Capacity.Storage().Cmp(wanted) != 0 {
		t.Errorf("%v, %v", claim.Status.Capacity, v.Spec.Capacity)
	}
	must(t, c.request(t, "growing", "4Ei"))
	c.event(t, "growing", reasonNotResized, "not enough free space")
	c.release(t, "growing")
	c.volumeGone(t, v.Name)
}
