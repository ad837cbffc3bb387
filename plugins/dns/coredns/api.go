package coredns

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/plugins/internal/identity"
)

// api is the component's way to the Kubernetes API.
type api struct {
	kubeconfig string
	config     *rest.Config
	client     kubernetes.Interface
}

// newAPI reads the kubeconfig. refused is called at each answer that says that the
// credentials are not good (any more).
func newAPI(kubeconfig string, refused func()) (*api, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the component's kubeconfig: %w", err)
	}
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.ContentType = runtime.ContentTypeProtobuf
	config.UserAgent = "k3m-dns-coredns"
	config.QPS = -1 // a handful of watches and now and then an Event
	identity.Watch(config, refused)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API: %w", err)
	}
	return &api{kubeconfig: kubeconfig, config: config, client: client}, nil
}

// clientConfig is what CoreDNS's kubernetes plugin takes a client's configuration from.
type clientConfig struct {
	kubeconfigFile
	config *rest.Config
}

// kubeconfigFile is the interface by another name than that of its method.
type kubeconfigFile = clientcmd.ClientConfig

// ClientConfig implements clientcmd.ClientConfig.
func (c clientConfig) ClientConfig() (*rest.Config, error) { return rest.CopyConfig(c.config), nil }
