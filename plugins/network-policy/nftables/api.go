package nftables

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/plugins/internal/identity"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// clients speak to the three groups that the component reads, and know no other types: the
// clientset of all groups would cost each start the registration of some thousand.
type clients struct{ core, networking, k3m rest.Interface }

var k3mVersion = schema.GroupVersion{Group: nodestatus.Group, Version: nodestatus.Version}

// newClients reads a kubeconfig. refused is called at each answer that says that the
// credentials are not good (any more).
func newClients(kubeconfig string, refused func()) (clients, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return clients{}, fmt.Errorf("read the component's kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return clients{}, fmt.Errorf("register the API's types: %w", err)
		}
	}
	scheme.AddKnownTypeWithName(k3mVersion.WithKind(nodestatus.NodeComponentsKind), &nodeComponents{})
	scheme.AddKnownTypeWithName(k3mVersion.WithKind(nodestatus.NodeComponentsKind+"List"), &nodeComponentsList{})
	scheme.AddKnownTypeWithName(k3mVersion.WithKind(nodestatus.ComponentKind), &clusterComponent{})
	scheme.AddKnownTypeWithName(k3mVersion.WithKind(nodestatus.ComponentKind+"List"), &clusterComponentList{})
	metav1.AddToGroupVersion(scheme, k3mVersion)
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()

	config.NegotiatedSerializer = codecs
	config.UserAgent = "k3m-network-policy-nftables"
	identity.Watch(config, refused)
	var c clients
	for _, group := range []struct {
		client  *rest.Interface
		path    string
		version schema.GroupVersion
		accept  string
	}{
		{&c.core, "/api", corev1.SchemeGroupVersion, runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON},
		{&c.networking, "/apis", networkingv1.SchemeGroupVersion, runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON},
		{&c.k3m, "/apis", k3mVersion, runtime.ContentTypeJSON}, // custom resources come in no other form
	} {
		own := rest.CopyConfig(config)
		own.APIPath, own.GroupVersion, own.AcceptContentTypes = group.path, &group.version, group.accept
		if *group.client, err = rest.RESTClientFor(own); err != nil {
			return clients{}, fmt.Errorf("make a client of the API: %w", err)
		}
	}
	return c, nil
}

// nodeComponents is the API's object.
type nodeComponents struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	nodestatus.NodeComponents
}

// DeepCopyObject implements runtime.Object. The status is never written to, so it is shared.
func (n *nodeComponents) DeepCopyObject() runtime.Object {
	c := *n
	n.DeepCopyInto(&c.ObjectMeta)
	return &c
}

type nodeComponentsList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []nodeComponents `json:"items"`
}

// DeepCopyObject implements runtime.Object; see nodeComponents.
func (l *nodeComponentsList) DeepCopyObject() runtime.Object {
	c := *l
	l.DeepCopyInto(&c.ListMeta)
	return &c
}

// clusterComponent is the API's object Component.
type clusterComponent struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	nodestatus.Component
}

// DeepCopyObject implements runtime.Object. The content is never written to, so it is shared.
func (c *clusterComponent) DeepCopyObject() runtime.Object {
	copied := *c
	c.DeepCopyInto(&copied.ObjectMeta)
	return &copied
}

type clusterComponentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []clusterComponent `json:"items"`
}

// DeepCopyObject implements runtime.Object; see clusterComponent.
func (l *clusterComponentList) DeepCopyObject() runtime.Object {
	copied := *l
	l.DeepCopyInto(&copied.ListMeta)
	return &copied
}

// watch keeps f informed of one resource: of each object that is new or changed, and, with
// there false, of each that is gone. f is called by one goroutine, which ends with ctx.
// synced is done when f was told all that there was at the start.
func watch[T runtime.Object](ctx context.Context, client rest.Interface, resource string, slim func(T), f func(object T, there bool)) (
	run func(), synced cache.DoneChecker,
) {
	var zero T
	tell := func(object any, there bool) {
		if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = unknown.Obj
		}
		if o, ok := object.(T); ok {
			f(o, there)
		}
	}
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(client, resource, metav1.NamespaceAll, fields.Everything()),
		ObjectType:    zero,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { tell(o, true) },
			UpdateFunc: func(_, o any) { tell(o, true) },
			DeleteFunc: func(o any) { tell(o, false) },
		},
		Transform: func(object any) (any, error) {
			if o, ok := object.(T); ok {
				slim(o)
			}
			return object, nil
		},
	})
	return func() { controller.RunWithContext(ctx) }, controller.HasSyncedChecker()
}

// The slim functions take away, in place, what the engine has no use for: a cluster's pods
// are kept on every node. They may see an object twice.

func slimPod(p *corev1.Pod) {
	meta := p.ObjectMeta
	p.ObjectMeta = metav1.ObjectMeta{
		Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion, Labels: meta.Labels,
		CreationTimestamp: meta.CreationTimestamp, DeletionTimestamp: meta.DeletionTimestamp, Annotations: initialEvents(meta),
	}
	slimContainers := func(all []corev1.Container) []corev1.Container {
		for i, c := range all {
			all[i] = corev1.Container{Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy}
		}
		return all
	}
	p.Spec = corev1.PodSpec{
		NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork,
		Containers: slimContainers(p.Spec.Containers), InitContainers: slimContainers(p.Spec.InitContainers),
	}
	slimStatuses := func(all []corev1.ContainerStatus) []corev1.ContainerStatus {
		for i, s := range all {
			all[i] = corev1.ContainerStatus{Name: s.Name}
			if s.State.Terminated != nil {
				all[i].State.Terminated = &corev1.ContainerStateTerminated{}
			}
			if s.State.Running != nil {
				all[i].State.Running = &corev1.ContainerStateRunning{}
			}
		}
		return all
	}
	p.Status = corev1.PodStatus{
		Phase: p.Status.Phase, PodIPs: p.Status.PodIPs, ContainerStatuses: slimStatuses(p.Status.ContainerStatuses),
		InitContainerStatuses:      slimStatuses(p.Status.InitContainerStatuses),
		EphemeralContainerStatuses: slimStatuses(p.Status.EphemeralContainerStatuses),
	}
}

func slimNamespace(n *corev1.Namespace) {
	n.ManagedFields, n.Annotations = nil, initialEvents(n.ObjectMeta)
}

func slimPolicy(p *networkingv1.NetworkPolicy) {
	p.ManagedFields, p.Annotations = nil, initialEvents(p.ObjectMeta)
}

func slimComponents(n *nodeComponents) {
	n.ManagedFields = nil
	n.Status.Ports = nil
	for i := range n.Status.Components {
		c := &n.Status.Components[i]
		*c = nodestatus.ComponentState{ID: c.ID, Endpoints: c.Endpoints}
	}
}

func slimComponent(c *clusterComponent) {
	c.ManagedFields = nil
	c.Component = nodestatus.Component{Spec: nodestatus.ComponentSpec{Labels: c.Spec.Labels}}
}

func slimNode(n *corev1.Node) {
	n.ObjectMeta = metav1.ObjectMeta{Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, Annotations: initialEvents(n.ObjectMeta)}
	n.Spec = corev1.NodeSpec{PodCIDRs: n.Spec.PodCIDRs}
	n.Status = corev1.NodeStatus{Addresses: n.Status.Addresses}
}

// initialEvents keeps the one annotation that client-go itself reads, on bookmarks.
func initialEvents(meta metav1.ObjectMeta) map[string]string {
	if value, there := meta.Annotations[metav1.InitialEventsAnnotationKey]; there {
		return map[string]string{metav1.InitialEventsAnnotationKey: value}
	}
	return nil
}

// podsOn asks for the pods of a node as they are now, not as some cache has them.
func podsOn(ctx context.Context, client rest.Interface, node string) ([]*pod, error) {
	var list corev1.PodList
	err := client.Get().Resource("pods").
		Param("fieldSelector", fields.OneTermEqualSelector("spec.nodeName", node).String()).
		Do(ctx).Into(&list)
	if err != nil {
		return nil, fmt.Errorf("list the pods of this node: %w", err)
	}
	var pods []*pod
	for i := range list.Items {
		if p := podOf(&list.Items[i], node); p != nil {
			pods = append(pods, p)
		}
	}
	return pods, nil
}
