package sdk

import "net/netip"

// PacketFilter is how kube-proxy on a node programs the kernel. A component that writes
// rules of its own uses the same.
type PacketFilter string

const (
	// NFTables is kube-proxy's nftables mode.
	NFTables PacketFilter = "nftables"
	// IPTables is kube-proxy's iptables mode.
	IPTables PacketFilter = "iptables"
)

// Facts are what the host knows of the node and the cluster when Run or Cleanup starts.
// Dual-stack lists begin with the primary family.
type Facts struct {
	NodeName      string
	NodeIPs       []netip.Addr
	ClusterCIDRs  []netip.Prefix
	ServiceCIDRs  []netip.Prefix
	ClusterDNS    []netip.Addr
	ClusterDomain string
	// PodGateways are this node's addresses on the pod network, where components that
	// pods talk to listen. Empty before the cni component reported them: a component
	// that needs them requires "cni".
	PodGateways  []netip.Addr
	PacketFilter PacketFilter
	Paths        Paths
	// CgroupParent is the cgroup under which k3m keeps its own: "/k3m".
	CgroupParent string
	// PauseImage is the sandbox image's reference.
	PauseImage string
	// RuntimeEndpoint is the CRI endpoint, "unix:///…"; empty before the runtime
	// reported it.
	RuntimeEndpoint string
	// ResolvConf is the path of the resolv.conf that names the servers which the node
	// itself asks: not a stub on a loopback address, which would be another one in a
	// pod. The file may name no server at all, and may change at any time.
	ResolvConf string
	// LocalStoragePath is where volumes on the node's own disk lie, unless a component's
	// own configuration says otherwise. It need not exist.
	LocalStoragePath string
	// KindRank is the component's own place among those of its kind that were chosen: 0
	// is the first, which has what only one can have, such as ports 80 and 443. A change
	// of it starts the component anew.
	KindRank int
}

// Paths are directories on the node, absolute. Those that the component's user may not
// write say so by their mode.
type Paths struct {
	// BinDir holds the executables that the distribution carries (runc, shims).
	BinDir string
	// CarriedCNIDir holds the CNI executables that the distribution carries.
	CarriedCNIDir string
	// CNIBinDir and CNIConfDir are where the runtime looks.
	CNIBinDir, CNIConfDir string
	// ImagesDir holds archives to import, CarriedImagesDir those that the distribution
	// carries.
	ImagesDir, CarriedImagesDir string
	// RunDir is for sockets; it does not outlive a reboot.
	RunDir string
	// AgentDir is <data-dir>/agent.
	AgentDir string
}
