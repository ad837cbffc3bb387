package controlplane

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/k3m-io/k3m/core/datastore"
	"github.com/k3m-io/k3m/core/health"
)

// Options say what control plane to run. Everything but Args and the fields marked so is
// needed.
type Options struct {
	// DataDir holds the cluster, in server/. The caller has locked it: datastore.AcquireLock.
	DataDir string
	// RunDir holds sockets, in server/.
	RunDir string

	// NodeName is this node's name.
	NodeName string
	// NodeIPs are this node's addresses; the first is where the kubernetes Service leads to, but
	// for an AdvertiseAddress.
	NodeIPs          []netip.Addr
	AdvertiseAddress netip.Addr
	// BindAddress is where the API listens; all addresses if it is the zero value.
	BindAddress netip.Addr
	// Port is the API's, 6443. 0 takes any free one, for tests.
	Port int

	// ClusterCIDRs are the pods' addresses, ServiceCIDRs the Services': one, or one of each
	// IP family.
	ClusterCIDRs []netip.Prefix
	ServiceCIDRs []netip.Prefix
	// NodePorts are the ports of NodePort Services, "30000-32767"; empty for upstream's.
	NodePorts string
	// ClusterDNS are the DNS Service's addresses.
	ClusterDNS []netip.Addr
	// ClusterDomain is the DNS domain of Services, "cluster.local".
	ClusterDomain string

	// TLSSANs are more names and addresses for the API's certificate. Optional.
	TLSSANs []string
	// KubeconfigPath is where the administrator's kubeconfig goes, with KubeconfigMode (0600
	// if it is 0) and KubeconfigGID (root's if it is 0 or less).
	KubeconfigPath string
	KubeconfigMode os.FileMode
	KubeconfigGID  int
	// Token is what nodes join with: a whole token or its secret alone. When it is empty,
	// the one in DataDir is used, or made.
	Token string
	// Component says which groups the certificate of a component on a node has, and whether
	// the component may have one there at all. It is called for each request of a node.
	Component func(id, node string) (groups []string, ok bool)
	// Services says which Services ("<namespace>/<name>") a component on a node serves with
	// TLS, and whether it may have a certificate for them. Optional.
	Services func(id, node string) (services []string, ok bool)

	// Sync says when a write to the datastore counts as done; Health hears when its disk fails.
	// Both are optional.
	Sync   datastore.Sync
	Health *health.Board

	// Args are the user's own arguments. Check them with Args.Validate before anything else.
	Args Args
}

const defaultKubeconfigMode = 0o600

func (o *Options) serverDir() string { return filepath.Join(o.DataDir, "server") }
func (o *Options) tlsDir() string    { return filepath.Join(o.serverDir(), "tls") }
func (o *Options) credDir() string   { return filepath.Join(o.serverDir(), "cred") }
func (o *Options) socket() string    { return filepath.Join(o.RunDir, "server", "kine.sock") }

// DatabaseFile is where the datastore of a data directory is.
func DatabaseFile(dataDir string) string {
	return filepath.Join(dataDir, "server", "db", "state.db")
}

// TokenFile is where the token that nodes join with is.
func TokenFile(dataDir string) string {
	return filepath.Join(dataDir, "server", "node-token")
}

// ServerCAFile is the certificate of the authority that signs what servers show.
func ServerCAFile(dataDir string) string {
	return filepath.Join(dataDir, "server", "tls", "server-ca.crt")
}

// AdminKubeconfig is the administrator's kubeconfig in a data directory, beside the one at
// Options.KubeconfigPath.
func AdminKubeconfig(dataDir string) string {
	return filepath.Join(dataDir, "server", "cred", "admin.kubeconfig")
}

// ManifestsDir is the folder of files whose objects are kept applied.
func ManifestsDir(dataDir string) string {
	return filepath.Join(dataDir, "server", "manifests")
}

// LockFile is the lock of a server on a data directory, for datastore.AcquireLock.
func LockFile(dataDir string) string {
	return filepath.Join(dataDir, "server", "lock")
}

// LocalAddress is where this machine reaches the API that listens on bind.
func LocalAddress(bind netip.Addr) netip.Addr {
	switch {
	case bind.IsValid() && !bind.IsUnspecified():
		return bind
	case bind == netip.IPv6Unspecified(): // an IPv4 one may not be listened on
		return loopback6
	}
	return loopback4
}

// check finds what would fail later with a worse message.
func (o *Options) check() error {
	switch {
	case o.DataDir == "" || o.RunDir == "":
		return fmt.Errorf("start control plane: no data directory or run directory")
	case len(o.NodeIPs) == 0:
		return fmt.Errorf("start control plane: no node address")
	case len(o.ServiceCIDRs) == 0 || len(o.ClusterCIDRs) == 0:
		return fmt.Errorf("start control plane: no cluster CIDR or service CIDR")
	case o.KubeconfigPath == "":
		return fmt.Errorf("start control plane: no path for the kubeconfig")
	}
	return nil
}

// serviceIP is the address of the kubernetes Service: the first of the range.
func serviceIP(cidr netip.Prefix) netip.Addr { return cidr.Masked().Addr().Next() }

func join[T fmt.Stringer](items []T) string { return strings.Join(words(items), ",") }

func words[T fmt.Stringer](items []T) []string {
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = item.String()
	}
	return words
}
