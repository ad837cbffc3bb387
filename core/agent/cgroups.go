package agent

import (
	"fmt"
	"path"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
)

// ensureCgroupRoot makes the cgroup below which the kubelet keeps those of pods, in the unified
// hierarchy or, with cgroup v1, in each one: the kubelet refuses a root that is not there.
func ensureCgroupRoot(root string) error {
	if path.Clean(root) == "/" {
		return nil
	}
	m, err := cgroupManager(root)
	if err != nil {
		return err
	}
	if err := m.Apply(-1); err != nil { // no process goes in
		return fmt.Errorf("make cgroup %s: %w", root, err)
	}
	return nil
}

// removeCgroups removes cgroup name, with what is below it, from every hierarchy. It fails when
// a process is still in it.
func removeCgroups(name string) error {
	m, err := cgroupManager(name)
	if err != nil {
		return err
	}
	if err := m.Destroy(); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", name, err)
	}
	return nil
}

func cgroupManager(name string) (cgroups.Manager, error) {
	if !path.IsAbs(name) || path.Clean(name) == "/" {
		return nil, fmt.Errorf("cgroup %q is not the absolute name of one below the root", name)
	}
	m, err := manager.New(&cgroups.Cgroup{Path: path.Clean(name), Resources: &cgroups.Resources{}})
	if err != nil {
		return nil, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	return m, nil
}
