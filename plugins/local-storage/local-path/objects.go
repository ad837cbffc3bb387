package localpath

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// provisionerName is in StorageClasses, and the name of the CSIDriver. It has no slash,
	// since a CSIDriver's can't.
	provisionerName = "local-path.k3m.io"
	// className is the StorageClass that the component owns.
	className = "local-path"
	// nodeLabel is on all that the component makes, with the name of its node: it lists and
	// watches no other node's.
	nodeLabel = provisionerName + "/node"
	// capacityAnnotation says on a PersistentVolume whether its size is enforced.
	capacityAnnotation = provisionerName + "/capacity"
	enforced           = "enforced"
	notEnforced        = "not-enforced"
)

// objects are what a server keeps applied while the component is selected.
//
// Nothing speaks CSI here. The CSIDriver is there because the scheduler looks at
// CSIStorageCapacity objects only for a provisioner that has a CSIDriver of its name with
// storageCapacity (volumebinding's hasEnoughCapacity); the volumes themselves are of type
// local, which no CSI driver has to do with.
func objects() []json.RawMessage {
	yes, no := true, false
	reclaim, binding := corev1.PersistentVolumeReclaimDelete, storagev1.VolumeBindingWaitForFirstConsumer
	return []json.RawMessage{
		encode(&storagev1.CSIDriver{
			TypeMeta:   metav1.TypeMeta{APIVersion: "storage.k8s.io/v1", Kind: "CSIDriver"},
			ObjectMeta: metav1.ObjectMeta{Name: provisionerName},
			Spec: storagev1.CSIDriverSpec{
				AttachRequired: &no, PodInfoOnMount: &no, StorageCapacity: &yes,
				VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent},
			},
		}),
		encode(&storagev1.StorageClass{
			TypeMeta: metav1.TypeMeta{APIVersion: "storage.k8s.io/v1", Kind: "StorageClass"},
			ObjectMeta: metav1.ObjectMeta{
				Name:        className,
				Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
			},
			Provisioner: provisionerName, ReclaimPolicy: &reclaim, VolumeBindingMode: &binding,
			// Whether a volume can grow depends on its node; where it can't, the component says so.
			AllowVolumeExpansion: &yes,
		}),
	}
}

func encode(object any) json.RawMessage {
	raw, err := json.Marshal(object)
	if err != nil {
		panic(err) // of our own types
	}
	return raw
}
