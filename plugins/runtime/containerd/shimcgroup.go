package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// shimCgroupOf is the cgroup of a node's shims, below the one that k3m keeps for itself.
func shimCgroupOf(parent string) string { return path.Join("/", parent, "shims") }

// createCgroup makes a cgroup without limits that processes can be put into: in the
// unified hierarchy, or in each mounted one of version 1. It may exist.
func createCgroup(name string) error {
	var err error
	if cgroups.Mode() == cgroups.Unified {
		_, err = cgroup2.NewManager("/sys/fs/cgroup", name, &cgroup2.Resources{})
	} else {
		_, err = cgroup1.New(cgroup1.StaticPath(name), &specs.LinuxResources{})
	}
	if err != nil {
		return fmt.Errorf("create cgroup %s: %w", name, err)
	}
	return nil
}

// cgroupProcesses returns the processes in a cgroup; none when there is no such cgroup.
func cgroupProcesses(name string) ([]int, error) {
	if cgroups.Mode() == cgroups.Unified {
		m, err := cgroup2.Load(name)
		if err != nil {
			return nil, err
		}
		found, err := m.Procs(true)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		pids := make([]int, 0, len(found))
		for _, p := range found {
			pids = append(pids, int(p))
		}
		return pids, err
	}
	cg, err := cgroup1.Load(cgroup1.StaticPath(name))
	if errors.Is(err, cgroup1.ErrCgroupDeleted) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	var pids []int
	for _, s := range cg.Subsystems() {
		found, err := cg.Processes(s.Name(), true)
		if err != nil {
			return nil, fmt.Errorf("list processes of cgroup %s: %w", name, err)
		}
		for _, p := range found {
			if !seen[p.Pid] {
				seen[p.Pid] = true
				pids = append(pids, p.Pid)
			}
		}
	}
	return pids, nil
}

// removeCgroup removes an empty cgroup, if it exists.
func removeCgroup(name string) error {
	var err error
	if cgroups.Mode() == cgroups.Unified {
		var m *cgroup2.Manager
		if m, err = cgroup2.Load(name); err == nil {
			err = m.Delete()
		}
	} else {
		var cg cgroup1.Cgroup
		cg, err = cgroup1.Load(cgroup1.StaticPath(name))
		if errors.Is(err, cgroup1.ErrCgroupDeleted) {
			return nil
		}
		if err == nil {
			err = cg.Delete()
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove cgroup %s: %w", name, err)
	}
	return nil
}
