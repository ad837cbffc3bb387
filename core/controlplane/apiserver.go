package controlplane

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	rbacrest "k8s.io/kubernetes/pkg/registry/rbac/rest"
	schedulingrest "k8s.io/kubernetes/pkg/registry/scheduling/rest"

	"github.com/k3m-io/k3m/core/atomicfile"
)

// How long the API server may take to stop. Watches are told to end at once, evenly spread
// over the grace period; what is still running after the timeout is cut off.
const (
	watchGracePeriod = time.Second
	apiStopTimeout   = 2 * time.Second
)

// authenticationConfig lets requests without a name reach health checks and nothing else.
const authenticationConfig = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /healthz
  - path: /livez
  - path: /readyz
`

func newAPIServerOptions() (*options.ServerRunOptions, *pflag.FlagSet) {
	opts := options.NewServerRunOptions()
	fs := pflag.NewFlagSet(APIServer, pflag.ContinueOnError)
	for _, set := range opts.Flags().FlagSets {
		fs.AddFlagSet(set)
	}
	return opts, fs
}

// apiServer is a kube-apiserver that is ready to run.
type apiServer struct {
	aggregator *aggregatorapiserver.APIAggregator
	// loopback is a client of the server itself that may do anything.
	loopback *rest.Config
}

// wrapHandler puts a handler in front of the API server's, before authentication.
type wrapHandler func(api http.Handler, loopback *rest.Config) (http.Handler, error)

// newAPIServer builds the server. It opens its storage and does not serve yet.
func (c *ControlPlane) newAPIServer(ctx context.Context, listener net.Listener, creds *credentials, storage string, wrap wrapHandler) (*apiServer, error) {
	opts, fs := newAPIServerOptions()
	defaults, err := c.apiServerDefaults(creds, storage)
	if err != nil {
		return nil, err
	}
	if err := c.opts.Args.apply(fs, APIServer, defaults); err != nil {
		return nil, err
	}
	if err := applyShared(c.opts.Args, opts, fs); err != nil {
		return nil, err
	}
	opts.SecureServing.Listener = listener
	opts.SecureServing.BindPort = listener.Addr().(*net.TCPAddr).Port
	if opts.InformerName, err = cache.NewInformerName(APIServer); err != nil {
		return nil, err
	}

	completed, err := opts.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) > 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	config, err := app.NewConfig(completed)
	if err != nil {
		return nil, err
	}
	if err := replaceSlowHooks(config.KubeAPIs.ControlPlane.Generic); err != nil {
		return nil, err
	}

	// The aggregator is the outermost of the three servers in the chain, the one that serves.
	s := &apiServer{loopback: config.Aggregator.GenericConfig.LoopbackClientConfig}
	inner := config.Aggregator.GenericConfig.BuildHandlerChainFunc
	var wrapErr error
	config.Aggregator.GenericConfig.BuildHandlerChainFunc = func(api http.Handler, generic *genericapiserver.Config) http.Handler {
		handler, err := wrap(inner(api, generic), s.loopback)
		if err != nil {
			wrapErr = err
		}
		return handler
	}
	ready, err := config.Complete()
	if err != nil {
		return nil, err
	}
	s.aggregator, err = app.CreateServerChain(ready)
	if err != nil {
		return nil, err
	}
	if wrapErr != nil {
		return nil, wrapErr
	}
	s.aggregator.GenericAPIServer.ShutdownTimeout = apiStopTimeout
	return s, nil
}

// replaceSlowHooks puts hooks that do the same work in the place of two upstream ones that wait
// for a whole second before they begin (wait.Poll), while /readyz waits for them.
func replaceSlowHooks(config *genericapiserver.Config) error {
	for _, h := range []struct {
		upstream, name string
		hook           genericapiserver.PostStartHookFunc
	}{
		{rbacrest.PostStartHookName, "k3m-bootstrap-roles", bootstrapRoles},
		{schedulingrest.PostStartHookName, "k3m-bootstrap-priority-classes", bootstrapPriorityClasses},
	} {
		if config.DisabledPostStartHooks.Has(h.upstream) {
			continue // the user does without: --authorization-mode without RBAC
		}
		config.DisabledPostStartHooks.Insert(h.upstream)
		if err := config.AddPostStartHook(h.name, h.hook); err != nil {
			return err
		}
	}
	return nil
}

// run serves until ctx ends.
func (s *apiServer) run(ctx context.Context) error {
	prepared, err := s.aggregator.PrepareRun()
	if err != nil {
		return err
	}
	return prepared.Run(ctx)
}

// apiServerDefaults are the flags that k3m sets.
func (c *ControlPlane) apiServerDefaults(creds *credentials, storage string) ([]argument, error) {
	o := c.opts
	advertise := o.AdvertiseAddress
	if !advertise.IsValid() {
		advertise = o.NodeIPs[0]
	}
	issuer := "https://kubernetes.default.svc." + o.ClusterDomain
	defaults := []argument{
		{name: "advertise-address", value: advertise.String()},
		{name: "etcd-servers", value: storage},
		{name: "service-cluster-ip-range", value: join(o.ServiceCIDRs)},

		{name: "authorization-mode", value: "Node,RBAC"},
		{name: "enable-admission-plugins", value: "NodeRestriction"},
		{name: "allow-privileged", value: "true"},
		{name: "profiling", value: "false"},

		{name: "tls-cert-file", value: creds.apiServing.CertFile},
		{name: "tls-private-key-file", value: creds.apiServing.KeyFile},
		{name: "tls-min-version", value: "VersionTLS12"},
		{name: "client-ca-file", value: creds.pki.Client.CertFile},

		{name: "service-account-issuer", value: issuer},
		{name: "service-account-key-file", value: creds.pki.ServiceAccountPublicKeyFile},
		{name: "service-account-signing-key-file", value: creds.pki.ServiceAccountKeyFile},

		{name: "kubelet-certificate-authority", value: creds.pki.Server.CertFile},
		{name: "kubelet-client-certificate", value: creds.kubeletClient.CertFile},
		{name: "kubelet-client-key", value: creds.kubeletClient.KeyFile},
		// By address: nothing needs to resolve the nodes' names.
		{name: "kubelet-preferred-address-types", value: "InternalIP,ExternalIP,Hostname"},

		{name: "proxy-client-cert-file", value: creds.aggregator.CertFile},
		{name: "proxy-client-key-file", value: creds.aggregator.KeyFile},
		{name: "requestheader-client-ca-file", value: creds.pki.RequestHeader.CertFile},
		{name: "requestheader-allowed-names", value: userAggregator},
		{name: "requestheader-username-headers", value: "X-Remote-User"},
		{name: "requestheader-group-headers", value: "X-Remote-Group"},
		{name: "requestheader-extra-headers-prefix", value: "X-Remote-Extra-"},

		// Aggregated APIs and webhooks are called at an endpoint of their Service, as soon as there
		// is one: the Service's own address would have to wait for this node's kube-proxy.
		{name: "enable-aggregator-routing", value: "true"},

		{name: "shutdown-watch-termination-grace-period", value: watchGracePeriod.String()},
	}
	if o.NodePorts != "" {
		defaults = append(defaults, argument{name: "service-node-port-range", value: o.NodePorts})
	}
	return c.appendAnonymous(append(defaults, singleServerDefaults()...))
}

// appendAnonymous limits anonymous requests to health checks by an authentication
// configuration, which excludes the oidc flags: with those there are no anonymous requests.
func (c *ControlPlane) appendAnonymous(defaults []argument) ([]argument, error) {
	args := c.opts.Args
	switch {
	case args.has(APIServer, "authentication-config"), args.has(APIServer, "anonymous-auth"):
		return defaults, nil
	case args.has(APIServer, "oidc-*"):
		return append(defaults, argument{name: "anonymous-auth", value: "false"}), nil
	}
	file := filepath.Join(c.opts.credDir(), "authentication.yaml")
	if err := atomicfile.Write(file, []byte(authenticationConfig), 0o600); err != nil {
		return nil, err
	}
	return append(defaults, argument{name: "authentication-config", value: file}), nil
}

// listen opens the API's port.
func (c *ControlPlane) listen(ctx context.Context) (net.Listener, error) {
	host := ""
	if c.opts.BindAddress.IsValid() && !c.opts.BindAddress.IsUnspecified() {
		host = c.opts.BindAddress.String()
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(c.opts.Port)))
	if err != nil {
		return nil, fmt.Errorf("listen for the API: %w: stop what uses port %d: ss -ltnp shows it", err, c.opts.Port)
	}
	return listener, nil
}

// isReady asks the server's own /readyz, without going through the network.
func (s *apiServer) isReady(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "/readyz", nil)
	if err != nil {
		return false
	}
	answer := &statusRecorder{header: http.Header{}}
	s.aggregator.GenericAPIServer.Handler.NonGoRestfulMux.ServeHTTP(answer, request)
	return answer.status == http.StatusOK
}

// statusRecorder is a http.ResponseWriter that keeps the status alone.
type statusRecorder struct {
	header http.Header
	status int
}

func (r *statusRecorder) Header() http.Header { return r.header }

func (r *statusRecorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *statusRecorder) Write(data []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return len(data), nil
}
