package containerd

import (
	"fmt"
	"os/exec"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	fuseoverlayfs "github.com/containerd/fuse-overlayfs-snapshotter/v2"
	"github.com/coreos/go-systemd/v22/util"
	"golang.org/x/sys/unix"
)

// abilities are what the host lets containers have, as far as containerd must be told.
type abilities struct {
	// systemdCgroup: systemd runs the host and cgroups are unified, so that it must be
	// asked for cgroups instead of being worked around.
	systemdCgroup bool
	// lowerOOMScore: the process may make others less likely to be killed.
	lowerOOMScore bool
	// apparmor: the kernel has it, and it is on.
	apparmor bool
}

func checkHost() (abilities, error) {
	lower, err := hasCapability(unix.CAP_SYS_RESOURCE)
	if err != nil {
		return abilities{}, err
	}
	return abilities{
		systemdCgroup: cgroups.Mode() == cgroups.Unified && util.IsRunningSystemd(),
		lowerOOMScore: lower,
		apparmor:      apparmor.HostSupports(),
	}, nil
}

// hasCapability tells whether the process may use c now and its children after it. A
// capability that is not in the bounding set is in no set of a process started by root.
func hasCapability(c int) (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read the process's capabilities: %w", err)
	}
	return data[c/32].Effective&(1<<(c%32)) != 0, nil
}

// chooseSnapshotter returns the one to use for images below root and, when that is not
// the first choice, why.
func chooseSnapshotter(wanted, root string) (name string, reason error) {
	switch wanted {
	case native:
		return native, nil
	case fuse:
		// Its mounts are made by mount.fuse3, which starts it.
		for _, program := range []string{"fuse-overlayfs", "mount.fuse3"} {
			if _, err := exec.LookPath(program); err != nil {
				return native, fmt.Errorf("%w; install fuse-overlayfs and fuse3", err)
			}
		}
		if err := fuseoverlayfs.Supported(root); err != nil {
			return native, err
		}
		return fuse, nil
	}
	if err := overlayutils.Supported(root); err != nil {
		return native, err
	}
	return overlayfs, nil
}
