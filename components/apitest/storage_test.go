package apitest

import (
	"context"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

var storage = sdk.Info{Kind: "local-storage", Name: "dirs", Scope: sdk.NodeScope, Rules: []sdk.Rule{
	{Verbs: []string{"create", "patch", "delete"}, APIGroups: []string{""}, Resources: []string{"persistentvolumes"}},
	{Verbs: []string{"get", "update"}, APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims"}},
	{Verbs: []string{"patch"}, APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims/status"}},
	{Verbs: []string{"create", "update", "delete"}, APIGroups: []string{"storage.k8s.io"}, Resources: []string{"csistoragecapacities"}},
}}

const chosenNode = "volume.kubernetes.io/selected-node"

func localVolume(name, node string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")},
		PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/storage/" + name}},
		ClaimRef:               &corev1.ObjectReference{Namespace: "default", Name: "c", UID: "u"},
		NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}}},
	}}
}

// testStorage: what the credentials of one node's storage component can and can't do to
// volumes, claims and capacities.
func testStorage(ctx context.Context, t *testing.T, one, admin kubernetes.Interface) {
	volumes := one.CoreV1().PersistentVolumes()
	// The API server compiles a new policy some moments after it was written.
	if err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		_, err := volumes.Create(ctx, localVolume("probe", "node-2"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil, nil
	}); err != nil {
		t.Fatalf("the policies were never heeded: %v", err)
	}
	allowed := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s was not refused", what)
		}
	}
	patch := func(name, body string) error {
		_, err := volumes.Patch(ctx, name, types.MergePatchType, []byte(body), metav1.PatchOptions{})
		return err
	}

	for _, node := range []string{"node-1", "node-2"} {
		if _, err := admin.CoreV1().PersistentVolumes().Create(ctx, localVolume("on-"+node, node), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := volumes.Create(ctx, localVolume("own", "node-1"), metav1.CreateOptions{})
	allowed("a volume of its node", err)
	for what, change := range map[string]func(*corev1.PersistentVolume){
		"a volume of two nodes": func(v *corev1.PersistentVolume) {
			e := &v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
			e.Values = append(e.Values, "node-2")
		},
		"a volume of its node or another": func(v *corev1.PersistentVolume) {
			terms := &v.Spec.NodeAffinity.Required.NodeSelectorTerms
			*terms = append(*terms, localVolume("x", "node-2").Spec.NodeAffinity.Required.NodeSelectorTerms...)
		},
		"a volume of all other nodes": func(v *corev1.PersistentVolume) {
			v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Operator = corev1.NodeSelectorOpNotIn
		},
		"a volume that is a path of every node": func(v *corev1.PersistentVolume) {
			v.Spec.NodeAffinity, v.Spec.Local = nil, nil
			v.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/"}
		},
	} {
		v := localVolume("bad", "node-1")
		change(v)
		_, err := volumes.Create(ctx, v, metav1.CreateOptions{})
		refused(what, err)
	}
	allowed("grow", patch("on-node-1", `{"spec":{"capacity":{"storage":"2Mi"}}}`))
	refused("grow another node's", patch("on-node-2", `{"spec":{"capacity":{"storage":"2Mi"}}}`))
	refused("another claim", patch("on-node-1", `{"spec":{"claimRef":{"name":"d"}}}`))
	refused("no claim", patch("on-node-1", `{"spec":{"claimRef":null}}`))
	refused("another reclaim policy", patch("on-node-1", `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`))
	refused("delete another node's", volumes.Delete(ctx, "on-node-2", metav1.DeleteOptions{}))
	allowed("delete its own", volumes.Delete(ctx, "own", metav1.DeleteOptions{}))

	t.Run("claims", func(t *testing.T) {
		claims := one.CoreV1().PersistentVolumeClaims("default")
		class := ""
		make := func(name, node string) *corev1.PersistentVolumeClaim {
			c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}}}}
			if node != "" {
				c.Annotations = map[string]string{chosenNode: node}
			}
			c, err := admin.CoreV1().PersistentVolumeClaims("default").Create(ctx, c, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		status := func(name string) error {
			_, err := claims.Patch(ctx, name, types.MergePatchType, []byte(`{"status":{"capacity":{"storage":"1Mi"}}}`), metav1.PatchOptions{}, "status")
			return err
		}
		mine, theirs, free := make("mine", "node-1"), make("theirs", "node-2"), make("free", "")
		allowed("status of its own", status("mine"))
		refused("status of another node's", status("theirs"))
		refused("status of one that no node has", status("free"))
		theirs.Annotations[chosenNode] = "node-1"
		_, err := claims.Update(ctx, theirs, metav1.UpdateOptions{})
		refused("take over", err)
		free.Annotations = map[string]string{chosenNode: "node-1"}
		_, err = claims.Update(ctx, free, metav1.UpdateOptions{})
		refused("take one that no node has", err)
		mine, err = claims.Get(ctx, "mine", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pushed := mine.DeepCopy()
		pushed.Annotations[chosenNode] = "node-2"
		_, err = claims.Update(ctx, pushed, metav1.UpdateOptions{})
		refused("push to another node", err)
		labelled := mine.DeepCopy()
		labelled.Labels = map[string]string{"a": "b"}
		_, err = claims.Update(ctx, labelled, metav1.UpdateOptions{})
		refused("labels", err)
		delete(mine.Annotations, chosenNode)
		_, err = claims.Update(ctx, mine, metav1.UpdateOptions{})
		allowed("give back to the scheduler", err)
	})

	t.Run("capacities", func(t *testing.T) {
		capacities := one.StorageV1().CSIStorageCapacities("default")
		of := func(name string, topology *metav1.LabelSelector) *storagev1.CSIStorageCapacity {
			q := resource.MustParse("1Gi")
			return &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Name: name}, StorageClassName: "c", NodeTopology: topology, Capacity: &q}
		}
		node := func(n string) *metav1.LabelSelector {
			return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: n}}
		}
		_, err := capacities.Create(ctx, of("own", node("node-1")), metav1.CreateOptions{})
		allowed("of its node", err)
		for what, topology := range map[string]*metav1.LabelSelector{
			"of another node": node("node-2"), "of none": nil, "of all": {},
			"of all with an expression": {MatchExpressions: []metav1.LabelSelectorRequirement{{Key: corev1.LabelHostname, Operator: metav1.LabelSelectorOpExists}}},
		} {
			_, err := capacities.Create(ctx, of("bad", topology), metav1.CreateOptions{})
			refused(what, err)
		}
		if _, err := admin.StorageV1().CSIStorageCapacities("default").Create(ctx, of("theirs", node("node-2")), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		refused("delete another node's", capacities.Delete(ctx, "theirs", metav1.DeleteOptions{}))
		allowed("delete its own", capacities.Delete(ctx, "own", metav1.DeleteOptions{}))
	})
}
