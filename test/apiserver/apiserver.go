// Package apiserver runs a Kubernetes API server on etcd in a test's own process: for
// tests of what talks to the API and needs neither controllers nor a node.
package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// Start runs an API server until the test ends, and returns an administrator's
// configuration. A process can run one at a time. It changes the working directory.
func Start(t *testing.T) *rest.Config {
	t.Helper()
	dir := t.TempDir()
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	t.Chdir(dir) // unix sockets of etcd are files in the working directory, named host:port
	startEtcd(t)

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, "sa.key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	write(t, "tokens.csv", []byte("an-administrator,admin,1,system:masters\n"))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()

	o := options.NewServerRunOptions()
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	named := o.Flags()
	for _, set := range named.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse([]string{
		"--etcd-servers=unix://etcd:1", "--authorization-mode=RBAC", "--token-auth-file=tokens.csv", "--cert-dir=" + dir,
		"--bind-address=127.0.0.1", "--secure-port=" + strconv.Itoa(port), "--service-cluster-ip-range=10.43.0.0/16,fd00:43::/112",
		"--service-account-key-file=sa.key", "--service-account-signing-key-file=sa.key",
		"--service-account-issuer=https://kubernetes.default.svc",
	}); err != nil {
		t.Fatal(err)
	}
	if o.InformerName, err = cache.NewInformerName("kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	completed, err := o.Complete(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- app.Run(ctx, completed) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	config := &rest.Config{
		Host: "https://127.0.0.1:" + strconv.Itoa(port), BearerToken: "an-administrator",
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1,
	}
	client := kubernetes.NewForConfigOrDie(config)
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil, nil
	})
	if err != nil {
		t.Fatalf("the API server was never ready: %v", err)
	}
	return config
}

func startEtcd(t *testing.T) {
	t.Helper()
	config := embed.NewConfig()
	config.Dir, config.LogLevel = filepath.Join(t.TempDir(), "etcd"), "fatal"
	clients, peers := []url.URL{{Scheme: "unix", Host: "etcd:1"}}, []url.URL{{Scheme: "unix", Host: "etcd:2"}}
	config.ListenClientUrls, config.AdvertiseClientUrls = clients, clients
	config.ListenPeerUrls, config.AdvertisePeerUrls = peers, peers
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	<-etcd.Server.ReadyNotify()
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Kubeconfig writes a kubeconfig for a user, in some groups, and gives its path. The user
// has the rights that RBAC gives, no more.
func Kubeconfig(t *testing.T, admin *rest.Config, user string, groups ...string) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: admin.Host, InsecureSkipTLSVerify: true}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: admin.BearerToken,
		Impersonate: user, ImpersonateGroups: append(groups, "system:authenticated")}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}
