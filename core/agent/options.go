package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"github.com/k3m-io/k3m/core/health"
)

// The agent's parts on Options.Health.
const (
	PartKubelet = "kubelet"
	PartProxy   = "kube-proxy"
)

// Defaults of where things lie. Several nodes can share a host as long as their data
// directories differ.
const (
	defaultDataDir = "/var/lib/k3m"
	// defaultPodLogsDir is where log collectors look for the logs of pods.
	defaultPodLogsDir = "/var/log/pods"
)

// Options is what an agent has to know.
type Options struct {
	// NodeName is the Kubernetes node's name.
	NodeName string
	// NodeIPs are the node's addresses, the preferred family first. HostIPs finds them.
	NodeIPs []netip.Addr
	// ExternalIPs are the addresses at which others reach the node. With any, the kubelet leaves the
	// node's addresses to whoever holds the cluster (see NodeAddresses), and registers with
	// the taint of a node that has none yet.
	ExternalIPs []netip.Addr
	// Labels and Taints are the node's when it registers.
	Labels map[string]string
	Taints []corev1.Taint
	// ProtectKernelDefaults refuses kernel settings that are not the kubelet's own instead of
	// changing them.
	ProtectKernelDefaults bool

	// DataDir is absolute; everything that the agent keeps lies in its agent/ folder.
	DataDir string
	// PodLogsDir is where the logs of pods go. Empty: /var/log/pods for the default data
	// directory, else agent/pod-logs, so that two nodes on a host don't clean up after
	// each other.
	PodLogsDir string

	// ServerURL is a server's address, "https://10.0.0.1:6443".
	ServerURL string
	// Token is K10<sha256 of the server CA>::node:<secret>. When it is empty, it is read from
	// TokenFile once ServerUp is closed: the server in this process makes it.
	Token, TokenFile string
	// ServerUp, if not nil, is closed when the server in this process listens: the agent
	// then asks at the right moment instead of trying until somebody answers.
	ServerUp <-chan struct{}

	// ControllersBuilt is closed when the controller-manager in this process has built its
	// controllers; nil when there is none. See afterControllers.
	ControllersBuilt <-chan struct{}

	// Runtime blocks until the container runtime serves CRI and returns its endpoint
	// ("unix:///run/k3m/containerd.sock", or the bare path of a socket).
	Runtime func(ctx context.Context) (string, error)

	// CgroupRoot is the cgroup under which the kubelet keeps those of pods; it is made if
	// it is missing. Empty is "/".
	CgroupRoot string

	// ResolvConf is the resolv.conf of pods that ask for the node's name servers. Empty lets
	// the agent choose: see ResolvConf.
	ResolvConf string

	// PacketFilter is kube-proxy's mode. The zero value lets the agent detect it.
	PacketFilter PacketFilter

	// KubeletArgs and KubeProxyArgs are upstream flags, "name=value" without dashes. They
	// win over what the agent sets.
	KubeletArgs, KubeProxyArgs []string

	// Health is where the kubelet and kube-proxy are told of, as PartKubelet and PartProxy; it
	// may be nil. kube-proxy does not say when its work is done: it stays Working here.
	Health *health.Board

	// Logger is the agent's own; nil is slog.Default(). The kubelet and kube-proxy log
	// through klog.
	Logger *slog.Logger
}

// complete checks o and fills in what follows from the rest.
func (o Options) complete() (Options, error) {
	switch {
	case o.NodeName == "":
		return o, errors.New("the node has no name")
	case len(o.NodeIPs) == 0:
		return o, errors.New("the node has no address: name one with --node-ip")
	case !filepath.IsAbs(o.DataDir):
		return o, fmt.Errorf("data directory %q is not absolute", o.DataDir)
	case o.Runtime == nil:
		return o, errors.New("nobody provides a container runtime")
	}
	if o.Token == "" && o.TokenFile == "" {
		return o, errors.New("there is no token to join with: name one with --token-file")
	}
	u, err := url.Parse(o.ServerURL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return o, fmt.Errorf("%q is not a server's address, such as https://10.0.0.1:6443", o.ServerURL)
	}
	if o.CgroupRoot == "" {
		o.CgroupRoot = "/"
	}
	o.PodLogsDir = o.podLogsDir()
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = o.Logger.With("part", "agent")
	return o, nil
}

func (o Options) podLogsDir() string {
	switch {
	case o.PodLogsDir != "":
		return o.PodLogsDir
	case filepath.Clean(o.DataDir) == defaultDataDir:
		return defaultPodLogsDir
	default:
		return o.path("pod-logs")
	}
}

// path is a path below <data-dir>/agent.
func (o Options) path(elem ...string) string {
	return filepath.Join(append([]string{o.DataDir, "agent"}, elem...)...)
}
