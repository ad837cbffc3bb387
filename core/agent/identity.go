package agent

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/k3m-io/k3m/core/atomicfile"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// identity is what a join gave: certificates and the cluster's facts.
type identity struct {
	cluster            wire.ClusterFacts
	serverCA, clientCA []byte // PEM
	// kubelet is the kubelet's client certificate, with which the agent asks for those of
	// components.
	kubelet tls.Certificate
	files   files
}

// files are the paths of what write wrote, for the flags and configurations that name them.
type files struct {
	serverCA, clientCA                 string
	servingCert, servingKey            string
	kubeletKubeconfig, proxyKubeconfig string
}

func (o Options) files() files {
	return files{
		serverCA:          o.path("tls", "server-ca.crt"),
		clientCA:          o.path("tls", "client-ca.crt"),
		servingCert:       o.path("tls", "serving-kubelet.crt"),
		servingKey:        o.path("tls", "serving-kubelet.key"),
		kubeletKubeconfig: o.path("kubelet.kubeconfig"),
		proxyKubeconfig:   o.path("kube-proxy.kubeconfig"),
	}
}

// keys are the private keys of the certificates that a join asks for. PEM.
type keys struct{ kubeletClient, kubeletServing, proxy []byte }

// newIdentity checks a server's answer against the keys that we sent and the CA that the
// token vouches for, and writes it to disk. All files are written at once: each is synced,
// and one after another would take several times as long.
func newIdentity(o Options, serverCA []byte, k keys, resp *wire.JoinResponse) (*identity, error) {
	id := &identity{cluster: resp.Cluster, serverCA: serverCA, clientCA: []byte(resp.ClientCA), files: o.files()}
	var err error
	if id.kubelet, err = checkPair("kubelet client", resp.KubeletClientCert, k.kubeletClient, []byte(resp.ClientCA), "system:node:"+o.NodeName); err != nil {
		return nil, err
	}
	if _, err = checkPair("kubelet serving", resp.KubeletServingCert, k.kubeletServing, serverCA, ""); err != nil {
		return nil, err
	}
	if _, err = checkPair("kube-proxy", resp.KubeProxyCert, k.proxy, []byte(resp.ClientCA), "system:kube-proxy"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.path("tls"), 0o700); err != nil {
		return nil, fmt.Errorf("keep the node's certificates: %w", err)
	}
	f := id.files
	var g errgroup.Group
	write := func(path string, data []byte) {
		g.Go(func() error { return atomicfile.Write(path, data, 0o600) })
	}
	write(f.serverCA, serverCA)
	write(f.clientCA, []byte(resp.ClientCA))
	write(f.servingCert, []byte(resp.KubeletServingCert))
	write(f.servingKey, k.kubeletServing)
	for _, c := range []struct {
		kubeconfig, name, cert string
		key                    []byte
	}{
		{f.kubeletKubeconfig, "client-kubelet", resp.KubeletClientCert, k.kubeletClient},
		{f.proxyKubeconfig, "client-kube-proxy", resp.KubeProxyCert, k.proxy},
	} {
		certFile, keyFile := o.path("tls", c.name+".crt"), o.path("tls", c.name+".key")
		config, err := kubeconfig(o.ServerURL, f.serverCA, certFile, keyFile)
		if err != nil {
			return nil, err
		}
		write(certFile, []byte(c.cert))
		write(keyFile, c.key)
		write(c.kubeconfig, config)
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("keep the node's certificates: %w", err)
	}
	return id, nil
}

// checkPair says whether the certificate is for our key, signed by ca and, for clients, for the
// user that we asked for.
func checkPair(name, certPEM string, keyPEM, ca []byte, user string) (tls.Certificate, error) {
	pair, err := tls.X509KeyPair([]byte(certPEM), keyPEM)
	if err != nil {
		return pair, fmt.Errorf("server sent a bad %s certificate: %w", name, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return pair, fmt.Errorf("server sent no authority for the %s certificate", name)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return pair, fmt.Errorf("server sent a bad %s certificate: %w", name, err)
	}
	if user != "" && pair.Leaf.Subject.CommonName != user {
		return pair, fmt.Errorf("server sent a %s certificate for %q instead of %q", name, pair.Leaf.Subject.CommonName, user)
	}
	return pair, nil
}

// kubeconfig renders a kubeconfig of one user that names its files.
func kubeconfig(server, ca, cert, key string) ([]byte, error) {
	const name = "k3m"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthority: ca}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificate: cert, ClientKey: key}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("render kubeconfig: %w", err)
	}
	return data, nil
}

// nodePassword reads the node's password, or makes one at its first start. A second machine
// can't join under this node's name without it.
func nodePassword(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		password := strings.TrimSpace(string(data))
		if password == "" {
			return "", fmt.Errorf("node password %s is empty: restore it, or remove it and delete the Node object", path)
		}
		return password, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the node password: %w", err)
	}
	secret := make([]byte, 16)
	rand.Read(secret) // never fails, see its documentation
	password := hex.EncodeToString(secret)
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return "", fmt.Errorf("keep the node password: %w", err)
	}
	if err := atomicfile.Write(path, []byte(password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the node password: %w", err)
	}
	return password, nil
}
