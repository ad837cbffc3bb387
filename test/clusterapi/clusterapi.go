// Package clusterapi runs k3m's control plane for the tests of components: the API that they
// are given, with the identity and exactly the rights that they are given.
package clusterapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/sdk"
)

// NodeName is the name of the node that components are told to be on. There is no such Node.
const NodeName = "server-1"

// startLimit bounds the boot, also on a machine that is busy with other things.
const startLimit = 2 * time.Minute

// API is a control plane in this process. There can be one in a process's life: Kubernetes'
// globals allow no second.
type API struct {
	// Admin is an administrator's configuration, Client a client with it.
	Admin  *rest.Config
	Client kubernetes.Interface
	// PKI are the cluster's authorities.
	PKI *pki.PKI

	dir    string
	cancel context.CancelFunc
	done   chan error
}

// Start runs a control plane on 127.0.0.1 and waits until its API is ready. It takes root for
// nothing. Stop it.
func Start(ctx context.Context) (_ *API, err error) {
	dir, err := os.MkdirTemp("", "k3m-api-")
	if err != nil {
		return nil, err
	}
	a := &API{dir: dir, done: make(chan error, 1)}
	ports := make([]any, 2)
	for i := range ports {
		if ports[i], err = freePort(ctx); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	opts := controlplane.Options{
		DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), KubeconfigPath: filepath.Join(dir, "admin.yaml"),
		NodeName: NodeName, NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.10")}, BindAddress: netip.MustParseAddr("127.0.0.1"),
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		ClusterDNS: []netip.Addr{netip.MustParseAddr("10.43.0.10")}, ClusterDomain: "cluster.local",
		Component: func(string, string) ([]string, bool) { return nil, false },
		Args: controlplane.Args{
			controlplane.ControllerManager: {fmt.Sprint("secure-port=", ports[0])},
			controlplane.Scheduler:         {fmt.Sprint("secure-port=", ports[1])},
		},
	}
	plane := controlplane.New(opts)
	running, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	go func() { a.done <- plane.Run(running) }()
	ctx, release := context.WithTimeout(ctx, startLimit)
	defer release()
	select {
	case <-plane.APIReady():
	case err := <-a.done:
		a.done <- err
		return nil, errors.Join(fmt.Errorf("the control plane ended: %w", err), a.Stop())
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("wait for the control plane: %w", ctx.Err()), a.Stop())
	}
	if err := a.connect(opts); err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

func (a *API) connect(opts controlplane.Options) (err error) {
	if a.Admin, err = clientcmd.BuildConfigFromFlags("", opts.KubeconfigPath); err != nil {
		return err
	}
	a.Admin.QPS = -1
	if a.Client, err = kubernetes.NewForConfig(a.Admin); err != nil {
		return err
	}
	a.PKI, err = pki.Ensure(filepath.Join(opts.DataDir, "server", "tls"), true)
	return err
}

// Stop ends the control plane and removes its files.
func (a *API) Stop() error {
	a.cancel()
	return errors.Join(<-a.done, os.RemoveAll(a.dir))
}

// Identify gives a component of NodeName its rights, as k3m does, and writes a kubeconfig of
// its own into dir.
func (a *API) Identify(ctx context.Context, dir string, info sdk.Info) (kubeconfig string, err error) {
	if err := components.Authorize(ctx, a.Client, []sdk.Info{info}); err != nil {
		return "", err
	}
	cert, key, err := a.PKI.Client.Issue(pki.Client("k3m:component:"+info.ID()+":"+NodeName, components.Groups(info)...))
	if err != nil {
		return "", err
	}
	for name, data := range map[string][]byte{"server-ca.crt": a.PKI.Server.PEM, "client.crt": cert, "client.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return "", err
		}
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["k3m"] = &clientcmdapi.Cluster{Server: a.Admin.Host, CertificateAuthority: "server-ca.crt"}
	config.AuthInfos["k3m"] = &clientcmdapi.AuthInfo{ClientCertificate: "client.crt", ClientKey: "client.key"}
	config.Contexts["k3m"] = &clientcmdapi.Context{Cluster: "k3m", AuthInfo: "k3m"}
	config.CurrentContext = "k3m"
	kubeconfig = filepath.Join(dir, "kubeconfig")
	return kubeconfig, clientcmd.WriteToFile(*config, kubeconfig)
}

// Serving makes a server's certificate, signed by the cluster's server authority; by the client
// authority, which nobody may take for a server's, if it is an impostor's.
func (a *API) Serving(name string, impostor bool, dns []string, ips ...netip.Addr) (cert, key []byte, err error) {
	authority := a.PKI.Server
	if impostor {
		authority = a.PKI.Client
	}
	return authority.Issue(pki.Serving(name, pki.SANs{DNSNames: dns, IPs: ips}))
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
