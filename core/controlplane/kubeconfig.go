package controlplane

import (
	"bytes"
	"fmt"
	"os"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/k3m-io/k3m/core/atomicfile"
	"github.com/k3m-io/k3m/core/pki"
)

// kubeconfig is a file that holds a server, its authority and a client certificate, so that
// it can be copied to another machine.
type kubeconfig struct {
	path string
	mode os.FileMode
	gid  int
	user string
	pair pki.Pair
}

// write writes the file if it would change. A kubeconfig of another cluster in its place is
// replaced: the path is k3m's.
func (k kubeconfig) write(server string, serverCA []byte) error {
	const name = "default"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: serverCA}
	config.AuthInfos[k.user] = &clientcmdapi.AuthInfo{ClientCertificateData: k.pair.CertPEM, ClientKeyData: k.pair.KeyPEM}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: k.user}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", k.path, err)
	}
	if k.holds(data) {
		return nil
	}
	if err := atomicfile.WriteFor(k.path, data, k.mode, k.gid); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

func (k kubeconfig) holds(data []byte) bool {
	info, err := os.Lstat(k.path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != k.mode {
		return false
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && int(owner.Gid) != k.gid {
		return false
	}
	old, err := os.ReadFile(k.path)
	return err == nil && bytes.Equal(old, data)
}
