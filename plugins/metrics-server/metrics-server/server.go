package metricsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	utilcompatibility "k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/metrics-server/pkg/api"
	"sigs.k8s.io/metrics-server/pkg/api/generated/openapi"
	"sigs.k8s.io/metrics-server/pkg/scraper"
	"sigs.k8s.io/metrics-server/pkg/scraper/client"
	"sigs.k8s.io/metrics-server/pkg/scraper/client/resource"
	metrics "sigs.k8s.io/metrics-server/pkg/server"
	"sigs.k8s.io/metrics-server/pkg/storage"

	"github.com/k3m-io/k3m/sdk"
)

const (
	// kubeletPort is where a kubelet is asked whose Node doesn't name its port.
	kubeletPort = 10250
	// maxScrapeTimeout is upstream's; the resolution must leave room for it.
	maxScrapeTimeout = 10 * time.Second
	// maxScrapeBytes bounds what one kubelet may answer: some 50 times what the 110 pods of
	// a full node take.
	maxScrapeBytes = 16 << 20
	// stopTimeout is how long requests have to end. All are short.
	stopTimeout = 3 * time.Second
	// maxRequests bounds the requests that are answered at once.
	maxRequests = 100
)

// server is all that runs.
type server struct {
	listener net.Listener
	upstream interface {
		RunUntil(stop <-chan struct{}) error
	}
	warmup warmup
}

// newServer puts metrics-server's packages together. It listens, and answers nobody before
// run.
func newServer(ctx context.Context, cfg config, host *sdk.Host) (_ *server, err error) {
	kubeconfig, err := clientcmd.BuildConfigFromFlags("", host.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the component's kubeconfig: %w", err)
	}
	kubeconfig.UserAgent = "k3m-metrics-server"
	listener, address, err := listen(ctx, host.Facts(), cfg.Port)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = listener.Close()
		}
	}()
	in, err := newInformers(kubeconfig)
	if err != nil {
		return nil, err
	}
	kubelets, err := resource.NewForConfig(kubeletConfig(kubeconfig))
	if err != nil {
		return nil, fmt.Errorf("make a client of the kubelets: %w", err)
	}
	serving, err := apiServer(listener, host)
	if err != nil {
		return nil, err
	}
	store := storage.NewStorage(cfg.resolution())
	nodes := in.nodeLister()
	if err := api.Install(store, in.pods.Lister(), nodes, serving, nil); err != nil {
		return nil, fmt.Errorf("install the metrics API: %w", err)
	}
	watched := &watch{
		Scraper: scraper.NewScraper(nodes, kubelets, min(maxScrapeTimeout, cfg.resolution()*9/10), nil),
		nodes:   nodes, host: host, patience: 2 * cfg.resolution(),
	}
	// It runs once the server listens.
	err = serving.AddPostStartHook("k3m-ready", func(genericapiserver.PostStartHookContext) error {
		host.Serve(sdk.Endpoint{
			Service: serviceNamespace + "/" + serviceName, Addresses: []netip.Addr{address},
			Ports: []sdk.EndpointPort{{Name: portName, Protocol: sdk.TCP, Port: uint16(cfg.Port), AppProtocol: "https"}}, // checked by parseConfig
		})
		watched.serving()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &server{
		listener: listener,
		upstream: metrics.NewServer(in.nodes, in.pods.Informer(), serving, store, watched, cfg.resolution()),
		warmup:   warmup{nodes: nodes, synced: in.nodes.HasSynced, scraper: watched, store: store, interval: warmupInterval},
	}, nil
}

// run serves until ctx ends.
func (s *server) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	warm := make(chan struct{})
	go func() {
		defer close(warm)
		s.warmup.run(ctx)
	}()
	err := s.upstream.RunUntil(ctx.Done())
	cancel()
	<-warm
	// It is closed already when the server got as far as serving.
	if closed := s.listener.Close(); err == nil && closed != nil && !errors.Is(closed, net.ErrClosed) {
		err = closed
	}
	return err
}

// listen opens the port on the node's address on the pod network, which on a node whose
// network is not k3m's is the node's own. The Service is of the cluster's first family alone.
func listen(ctx context.Context, facts sdk.Facts, port int) (net.Listener, netip.Addr, error) {
	addresses := facts.PodGateways
	if len(addresses) == 0 {
		addresses = facts.NodeIPs
	}
	if len(addresses) == 0 {
		return nil, netip.Addr{}, errors.New("the node has no address to serve the metrics API on")
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(addresses[0], uint16(port)).String()) // checked by parseConfig
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, netip.Addr{}, fmt.Errorf("%w: stop what uses the port (ss -ltnp shows it), or set the component's port to another", err)
	}
	return listener, addresses[0], err
}

// apiServer is the API machinery as a server that is embedded into something else needs it:
// who asks and whether they may is the API server's to say; there is no profiling, no audit,
// no index, and no timer that keeps statistics nobody reads.
func apiServer(listener net.Listener, host *sdk.Host) (*genericapiserver.GenericAPIServer, error) {
	config := genericapiserver.NewConfig(api.Codecs)
	config.EffectiveVersion = utilcompatibility.DefaultBuildEffectiveVersion()
	config.EnableIndex, config.EnableProfiling, config.EnableMetrics = false, false, false
	config.MaxRequestsInFlight, config.MaxMutatingRequestsInFlight = maxRequests, maxRequests
	config.DisabledPostStartHooks.Insert("max-in-flight-filter", "storage-object-count-tracker-hook")
	config.ExternalAddress = listener.Addr().String()
	// Nothing here asks this server, so there is no credential to do it with.
	config.LoopbackClientConfig = &rest.Config{Host: "https://" + listener.Addr().String()}

	namer := openapinamer.NewDefinitionNamer(api.Scheme)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	config.OpenAPIConfig.Info.Title, config.OpenAPIConfig.Info.Version = serviceName, version
	config.OpenAPIV3Config.Info.Title, config.OpenAPIV3Config.Info.Version = serviceName, version

	certFile, keyFile := host.ServingCertificate()
	// It watches the files, and takes up a renewed certificate.
	cert, err := dynamiccertificates.NewDynamicServingContentFromFiles("serving-certificate", certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the serving certificate: %w", err)
	}
	config.SecureServing = &genericapiserver.SecureServingInfo{Listener: listener, Cert: cert}

	authentication := genericoptions.NewDelegatingAuthenticationOptions()
	authentication.RemoteKubeConfigFile = host.Kubeconfig()
	if err := authentication.ApplyTo(&config.Authentication, config.SecureServing, config.OpenAPIConfig); err != nil {
		return nil, fmt.Errorf("let the API authenticate: %w", err)
	}
	authorization := genericoptions.NewDelegatingAuthorizationOptions()
	authorization.RemoteKubeConfigFile = host.Kubeconfig()
	// No kubelet probes a component.
	authorization.AlwaysAllowPaths = nil
	if err := authorization.ApplyTo(&config.Authorization); err != nil {
		return nil, fmt.Errorf("let the API authorise: %w", err)
	}

	s, err := config.Complete(nil).New(serviceName, genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, fmt.Errorf("make the API server: %w", err)
	}
	s.ShutdownTimeout = stopTimeout
	return s, nil
}

// kubeletConfig says how kubelets are reached: by address, so that no name need be
// resolved, with the component's own certificate, and only if theirs is signed by the
// authority that the kubeconfig names, which signs the API server's and theirs alike.
func kubeletConfig(kubeconfig *rest.Config) *client.KubeletClientConfig {
	config := rest.CopyConfig(kubeconfig)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return bounded{next} })
	return &client.KubeletClientConfig{
		Client:              *config,
		AddressTypePriority: []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName},
		Scheme:              "https",
		DefaultPort:         kubeletPort,
		UseNodeStatusPort:   true,
	}
}

// bounded makes an answer that is larger than maxScrapeBytes an error.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.next.RoundTrip(request)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, maxScrapeBytes)
	}
	return response, err
}
