package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/k3m-io/k3m/sdk"
)

// namespace is containerd's namespace of everything that CRI makes.
const namespace = "k8s.io"

const (
	// maxSocketDir is the longest directory that containerd accepts for its shims'
	// sockets, whose names are hashes.
	maxSocketDir = 42
	// maxSocketPath is the kernel's limit on a unix socket's path, less the final zero.
	maxSocketPath = 107
	// shimSocketsElsewhere holds the shims' sockets of nodes whose run directory has too
	// long a name.
	shimSocketsElsewhere = "/run/k3m-shims"
)

// layout is where everything of one node's containerd lives. All of it derives from the
// node's data and run directories, so that nodes on one host don't meet.
type layout struct {
	// root outlives a reboot: images, snapshots, metadata.
	root string
	// state does not: sockets, bundles, mounts, network namespaces.
	state string
	// socket serves containerd's API and CRI; ttrpc is what the shims report to.
	socket, ttrpc string
	// shimSockets is the directory of the shims' own sockets.
	shimSockets string
	// bin is a link to the executables of the distribution. Running containers remember
	// the paths of their shim and runc; the link keeps those good when an upgrade
	// unpacks the executables elsewhere.
	bin string
	// registries is where registry settings (certs.d) are looked for.
	registries string
}

func newLayout(agentDir, runDir string) layout {
	state := filepath.Join(runDir, "containerd")
	l := layout{
		root:        filepath.Join(agentDir, "containerd"),
		state:       state,
		socket:      filepath.Join(state, "containerd.sock"),
		ttrpc:       filepath.Join(state, "containerd.sock.ttrpc"),
		shimSockets: filepath.Join(state, "s"),
		registries:  filepath.Join(agentDir, "etc", "containerd", "certs.d"),
	}
	l.bin = filepath.Join(l.root, "bin")
	if len(l.shimSockets) > maxSocketDir {
		sum := sha256.Sum256([]byte(state))
		l.shimSockets = filepath.Join(shimSocketsElsewhere, hex.EncodeToString(sum[:4]))
	}
	return l
}

func commandLayout(paths sdk.CommandPaths) layout {
	return newLayout(filepath.Join(paths.DataDir, "agent"), paths.RunDir)
}

// endpoint is the CRI endpoint as the kubelet wants it.
func (l layout) endpoint() string { return "unix://" + l.socket }

func (l layout) validate() error {
	if !filepath.IsAbs(l.root) || !filepath.IsAbs(l.state) {
		return fmt.Errorf("the directories %s and %s are not absolute", l.root, l.state)
	}
	if len(l.ttrpc) > maxSocketPath {
		return fmt.Errorf("the socket %s is %d bytes longer than the kernel allows: choose a shorter --run-dir",
			l.ttrpc, len(l.ttrpc)-maxSocketPath)
	}
	return nil
}

// runcRoot is where runc keeps the state of this node's containers.
func (l layout) runcRoot() string { return filepath.Join(l.state, "runc") }

// netns holds the network namespaces of this node's sandboxes, as mounts.
func (l layout) netns() string {
	return filepath.Join(l.state, "io.containerd.grpc.v1.cri", "netns")
}

// bundles holds one directory a container.
func (l layout) bundles() string {
	return filepath.Join(l.state, "io.containerd.runtime.v2.task", namespace)
}
