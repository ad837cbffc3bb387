package nodeip

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// fieldManager is who the API says wrote a Service's status.
const fieldManager = "k3m:component:" + id

// clients are for the groups that the component needs and no other: the clientset of all
// groups would cost each start the registration of some thousand types.
type clients struct {
	core, discovery, k3m rest.Interface
}

// nodeComponents is the object in which a node's core says how its components fare and
// who holds its ports.
type nodeComponents struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	nodestatus.NodeComponents `json:",inline"`
}

// DeepCopyObject implements runtime.Object. The objects are never changed, so what they
// point to may be shared.
func (n *nodeComponents) DeepCopyObject() runtime.Object {
	c := *n
	c.ObjectMeta = *n.DeepCopy()
	return &c
}

type nodeComponentsList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []nodeComponents `json:"items"`
}

// DeepCopyObject implements runtime.Object; see nodeComponents.
func (l *nodeComponentsList) DeepCopyObject() runtime.Object {
	c := *l
	return &c
}

func newClients(kubeconfig string) (*clients, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the component's kubeconfig: %w", err)
	}
	config.UserAgent = "k3m-servicelb-nodeip"
	// A node that goes away may change the status of each Service.
	config.QPS, config.Burst = 100, 200
	own := schema.GroupVersion{Group: nodestatus.Group, Version: nodestatus.Version}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register the API: %w", err)
		}
	}
	scheme.AddKnownTypeWithName(own.WithKind(nodestatus.NodeComponentsKind), &nodeComponents{})
	scheme.AddKnownTypeWithName(own.WithKind(nodestatus.NodeComponentsKind+"List"), &nodeComponentsList{})
	metav1.AddToGroupVersion(scheme, own)
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()

	client := func(path string, version schema.GroupVersion, contents string) (rest.Interface, error) {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer, c.AcceptContentTypes = path, &version, codecs, contents
		client, err := rest.RESTClientFor(c)
		if err != nil {
			return nil, fmt.Errorf("make a client of the API: %w", err)
		}
		return client, nil
	}
	const protobuf = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	var c clients
	if c.core, err = client("/api", corev1.SchemeGroupVersion, protobuf); err != nil {
		return nil, err
	}
	if c.discovery, err = client("/apis", discoveryv1.SchemeGroupVersion, protobuf); err != nil {
		return nil, err
	}
	c.k3m, err = client("/apis", own, runtime.ContentTypeJSON)
	return &c, err
}
