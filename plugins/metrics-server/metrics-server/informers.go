package metricsserver

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/metrics-server/pkg/scraper/client/resource"
)

// informed are the nodes, and the metadata of the pods that run. Both are kept without what
// nobody here reads: a Node's images and managed fields are most of its size.
type informed struct {
	nodes cache.SharedIndexInformer
	pods  informers.GenericInformer
}

func newInformers(kubeconfig *rest.Config) (*informed, error) {
	binary := rest.CopyConfig(kubeconfig)
	binary.ContentType = "application/vnd.kubernetes.protobuf"
	nodes, err := kubernetes.NewForConfig(binary)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API: %w", err)
	}
	pods, err := metadata.NewForConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API: %w", err)
	}
	in := &informed{
		nodes: coreinformers.NewNodeInformer(nodes, 0, cache.Indexers{}),
		pods: metadatainformer.NewFilteredMetadataInformer(pods, corev1.SchemeGroupVersion.WithResource("pods"),
			metav1.NamespaceAll, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}, running),
	}
	if err := in.nodes.SetTransform(trimNode); err != nil {
		return nil, err
	}
	return in, in.pods.Informer().SetTransform(trimPod)
}

func (in *informed) nodeLister() corelisters.NodeLister {
	return corelisters.NewNodeLister(in.nodes.GetIndexer())
}

func running(options *metav1.ListOptions) {
	options.FieldSelector = fields.OneTermEqualSelector("status.phase", string(corev1.PodRunning)).String()
}

// trimNode is a cache.TransformFunc.
func trimNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil // a cache.DeletedFinalStateUnknown
	}
	small := &corev1.Node{
		ObjectMeta: trimMeta(node.ObjectMeta),
		Status:     corev1.NodeStatus{Addresses: node.Status.Addresses, DaemonEndpoints: node.Status.DaemonEndpoints},
	}
	if path, ok := node.Annotations[resource.AnnotationResourceMetricsPath]; ok {
		small.Annotations = map[string]string{resource.AnnotationResourceMetricsPath: path}
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			small.Status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	return small, nil
}

// trimPod is a cache.TransformFunc.
func trimPod(object any) (any, error) {
	pod, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object, nil
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: trimMeta(pod.ObjectMeta)}, nil
}

// trimMeta keeps what the API selects by and shows.
func trimMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Labels: m.Labels}
}

// isReady says whether the kubelet says that its node is.
func isReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
