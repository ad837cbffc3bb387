package config

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Defaults that other parts of k3m share.
const (
	DefaultDataDir    = "/var/lib/k3m"
	DefaultRunDir     = "/run/k3m"
	DefaultFile       = "/etc/k3m/config.yaml"
	DefaultKubeconfig = "/etc/k3m/k3m.yaml"

	// DefaultPauseImage is the sandbox image that the distribution carries.
	DefaultPauseImage = "registry.k3m.io/pause:1"
	// The cluster's addresses and domain are those of k3s.
	DefaultClusterCIDR   = "10.42.0.0/16"
	DefaultServiceCIDR   = "10.43.0.0/16"
	DefaultClusterDNS    = "10.43.0.10"
	DefaultClusterDomain = "cluster.local"
	// DefaultNodePorts are upstream's.
	DefaultNodePorts = "30000-32767"
	// DefaultSnapshotSchedule and DefaultSnapshotRetention are those of k3s.
	DefaultSnapshotSchedule  = "0 */12 * * *"
	DefaultSnapshotRetention = 5
	// APIPort is where the API server and the supervisor listen by default.
	APIPort = 6443
)

// Value is one setting and where it was found.
type Value struct {
	// Text is what the user wrote.
	Text string
	// Source is what an error message names: "--enable", "K3M_ENABLE" or
	// "/etc/k3m/config.yaml:3:9"; "default" for a value nobody wrote.
	Source string
}

// Component is one block below `components:` of the configuration files.
type Component struct {
	// Raw is the block as JSON; the component itself knows what it may hold.
	Raw json.RawMessage
	// Source is the place of the block, "file:line:column"; of the first one, when several
	// files have one.
	Source string
	// Places are those of the block's keys and list items: "backend", "pools[0].size".
	Places map[string]string
}

// At is the place of a key, or of what holds it, or of the block.
func (c Component) At(path string) string {
	for path != "" {
		if place, ok := c.Places[path]; ok {
			return place
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return c.Source
}

// Config is a server's merged and checked configuration.
type Config struct {
	// NodeName is the Kubernetes node's name. WithNodeID asks the server to append the node's ID
	// to it.
	NodeName   string
	WithNodeID bool
	// NodeIPs are the node's addresses, the preferred family first; empty means that
	// the agent chooses the address of the default route or the first global one.
	NodeIPs []netip.Addr
	// NodeExternalIPs are those at which others reach the node, one of each family at most.
	NodeExternalIPs []netip.Addr
	// NodeLabels are given to the node at each start, NodeTaints when it joins.
	NodeLabels map[string]string
	NodeTaints []corev1.Taint
	// ProtectKernelDefaults has the kubelet refuse kernel settings that it would change.
	ProtectKernelDefaults bool

	// DataDir and RunDir are absolute.
	DataDir, RunDir string
	// File is the configuration file that was read, or would have been; DropIns lie in the
	// folder DropInDir(File).
	File string
	// WriteKubeconfig is where the administrator's kubeconfig goes, absolute.
	WriteKubeconfig string
	// KubeconfigMode is its mode, KubeconfigGID its group, -1 for root's.
	KubeconfigMode os.FileMode
	KubeconfigGID  int

	// ClusterCIDRs are the ranges of pods, ServiceCIDRs those of Services: the same families in
	// the same order, one range of each.
	ClusterCIDRs, ServiceCIDRs []netip.Prefix
	// NodePorts are the ports of NodePort Services.
	NodePorts PortRange
	// ClusterDNS are the addresses of the cluster's DNS service, ClusterDomain the domain of
	// its Services.
	ClusterDNS    []netip.Addr
	ClusterDomain string
	// BindAddress is where the API listens; the zero value and unspecified ones stand for all
	// addresses. HTTPSPort is its port. AdvertiseAddress is where pods reach it; the zero value
	// stands for the node's first address.
	BindAddress      netip.Addr
	HTTPSPort        int
	AdvertiseAddress netip.Addr
	// TLSSANs are more names and addresses for the API's certificate.
	TLSSANs []string
	// ResolvConf is the resolv.conf with the node's own name servers, absolute; empty
	// means that the agent chooses.
	ResolvConf string
	// LocalStoragePath is where volumes on the node's disk lie, absolute.
	LocalStoragePath string

	// DatastoreSync is "full" or "normal": see datastore.Sync.
	DatastoreSync string
	// SnapshotSchedule is when snapshots are made, as in a crontab; empty for never.
	// SnapshotRetention is how many of those are kept, SnapshotDir where they lie, absolute.
	SnapshotSchedule  string
	SnapshotRetention int
	SnapshotDir       string

	// Token is the cluster's join secret; empty means that one is made. It must not
	// be logged.
	Token string

	// Enable and Disable choose components.
	Enable, Disable []Value
	// FlannelBackend is "" or the backend that --flannel-backend named.
	FlannelBackend Value
	// Snapshotter, PrivateRegistry and DisableDefaultRegistryEndpoint are "" or what the flags
	// of those names say; the path is absolute, the last one "true" or "false".
	Snapshotter, PrivateRegistry, DisableDefaultRegistryEndpoint Value
	// PauseImage is the sandbox image's reference.
	PauseImage string
	// Components are the configuration blocks by component ID.
	Components map[string]Component

	// Extra arguments for the upstream parts, "name=value" without dashes.
	APIServerArgs, ControllerManagerArgs, SchedulerArgs []Value
	KubeletArgs, KubeProxyArgs                          []Value

	// LogFile is where the log goes instead of standard error, absolute; empty means
	// standard error. AlsoLogToStderr writes to both.
	LogFile         string
	AlsoLogToStderr bool
	// LogFormat is "text" or "json".
	LogFormat string
	// Debug logs more of everything.
	Debug bool

	// Profiling serves Go's profiles on the admin socket.
	Profiling bool

	// settings are the values of each option that somebody wrote, for Changed.
	settings map[string][]Value
}

// Changed lists the options, in the order of the help text, that have another value in other,
// as far as they were written down.
func (c *Config) Changed(other *Config) []string {
	var changed []string
	for _, o := range options {
		if !slices.Equal(Texts(c.settings[o.name]), Texts(other.settings[o.name])) {
			changed = append(changed, o.name)
		}
	}
	return changed
}

// AgentDir is the folder of what every node keeps.
func (c *Config) AgentDir() string { return filepath.Join(c.DataDir, "agent") }

// SnapshotDir is the default folder of a data directory's snapshots.
func SnapshotDir(dataDir string) string { return filepath.Join(dataDir, "server", "snapshots") }

// Texts are the values without their sources.
func Texts(values []Value) []string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.Text
	}
	return texts
}

// Error is a mistake in the configuration. The process exits with code 2 and has not
// touched the host.
type Error struct {
	// Source names the flag, the variable or the file and line.
	Source string
	// Message says what was found, what is allowed and how to mend it.
	Message string
}

func (e *Error) Error() string { return e.Source + ": " + e.Message }

// Given tells whether somebody wrote an option down: as a flag, a variable or a key.
func (c *Config) Given(option string) bool { return len(c.settings[option]) > 0 }

// ValidNodeName tells whether a node can have a name.
func ValidNodeName(name string) bool { return len(validation.IsDNS1123Subdomain(name)) == 0 }
