package components

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/k3m-io/k3m/components/cgroup"
	"github.com/k3m-io/k3m/sdk"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/cgroups/fs2"
)

// v1Controllers are the hierarchies of cgroup version 1 that a component's group exists
// in: those that limit it, and pids, which finds its processes.
var v1Controllers = []string{"pids", "memory", "cpu", "cpuacct"}

// cpuPeriod is the kernel's default for cpu.cfs_period_us and cpu.max.
const cpuPeriod = 100_000

// maxProcesses is how many processes and threads a component may have, so that one that
// forks endlessly does not use up the host's. It is some ten times what the threads of a
// busy Go program and its children come to.
const maxProcesses = 1024

// processLimit is a component's limit of processes; 0 for a runtime, which has some for
// each container.
func processLimit(info sdk.Info) int64 {
	if isRuntime(info) {
		return 0
	}
	return maxProcesses
}

// groupOf returns the control group <parent>/<name>, where parent is absolute, "/k3m".
// Hierarchies that the host does not have are left out; a host without any gives an
// empty group, in which nothing is limited or found.
func groupOf(parent, name string) (cgroup.Group, error) {
	path := filepath.Join(parent, name)
	if cgroups.IsCgroup2UnifiedMode() {
		return cgroup.Group{filepath.Join(fs2.UnifiedMountpoint, path)}, nil
	}
	var g cgroup.Group
	for _, controller := range v1Controllers {
		mount, err := cgroups.FindCgroupMountpoint("", controller)
		if cgroups.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find cgroup controller %s: %w", controller, err)
		}
		dir := filepath.Join(mount, path)
		if len(g) == 0 || g[len(g)-1] != dir { // cpu and cpuacct are often mounted together
			g = append(g, dir)
		}
	}
	return g, nil
}

// makeGroup makes a control group and limits it; processes is 0 for no limit. What can't be limited, as the host
// lacks the controller, is returned as a second error; the group is there all the same.
func makeGroup(g cgroup.Group, limits sdk.Limits, processes int64) (unlimited, err error) {
	for _, dir := range g {
		if cgroups.IsCgroup2UnifiedMode() {
			err = fs2.CreateCgroupPath(dir, &cgroups.Cgroup{Resources: &cgroups.Resources{}})
		} else {
			err = os.MkdirAll(dir, 0o755)
		}
		if err != nil {
			return nil, fmt.Errorf("make cgroup: %w", err)
		}
	}
	if err := limit(g, &cgroups.Resources{Memory: limits.MemoryBytes, SkipDevices: true}); err != nil {
		unlimited = fmt.Errorf("limit memory: %w", err)
	}
	if limits.CPUMilli > 0 {
		r := &cgroups.Resources{CpuPeriod: cpuPeriod, CpuQuota: limits.CPUMilli * cpuPeriod / 1000, SkipDevices: true}
		if err := limit(g, r); err != nil {
			unlimited = errors.Join(unlimited, fmt.Errorf("limit cpu: %w", err))
		}
	}
	if processes > 0 {
		if err := limit(g, &cgroups.Resources{PidsLimit: &processes, SkipDevices: true}); err != nil {
			unlimited = errors.Join(unlimited, fmt.Errorf("limit processes: %w", err))
		}
	}
	return unlimited, nil
}

func limit(g cgroup.Group, r *cgroups.Resources) error {
	m, err := managerOf(g, r)
	if err != nil {
		return err
	}
	return m.Set(r)
}

// managerOf returns opencontainers' view of the group.
func managerOf(g cgroup.Group, r *cgroups.Resources) (cgroups.Manager, error) {
	if len(g) == 0 {
		return nil, errors.New("the host has no cgroups")
	}
	if cgroups.IsCgroup2UnifiedMode() {
		return fs2.NewManager(&cgroups.Cgroup{Resources: r}, g[0])
	}
	paths := map[string]string{}
	for _, controller := range v1Controllers {
		mount, err := cgroups.FindCgroupMountpoint("", controller)
		if err != nil {
			continue
		}
		for _, dir := range g {
			if rel, err := filepath.Rel(mount, dir); err == nil && filepath.IsLocal(rel) {
				paths[controller] = dir
			}
		}
	}
	return fs.NewManager(&cgroups.Cgroup{Resources: r}, paths)
}

// oomKills counts the processes of the group that the kernel killed for want of memory.
func oomKills(g cgroup.Group) uint64 {
	m, err := managerOf(g, &cgroups.Resources{SkipDevices: true})
	if err != nil {
		return 0
	}
	n, err := m.OOMKillCount()
	if err != nil {
		return 0
	}
	return n
}
