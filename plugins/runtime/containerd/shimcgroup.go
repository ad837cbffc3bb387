package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// unified is where cgroup version 2 is mounted on a host that has it alone.
const unified = "/sys/fs/cgroup"

// shimCgroupOf is the cgroup of a node's shims, below the one that k3m keeps for itself.
func shimCgroupOf(parent string) string { return path.Join("/", parent, "shims") }

// createCgroup makes a cgroup without limits that processes can be put into: in the
// unified hierarchy, or in each mounted one of version 1. It may exist.
func createCgroup(name string) error {
	var err error
	if cgroups.Mode() == cgroups.Unified {
		err = os.MkdirAll(filepath.Join(unified, name), 0o755)
	} else {
		// In version 1 some hierarchies take no process before they are set up.
		_, err = cgroup1.New(cgroup1.StaticPath(name), &specs.LinuxResources{})
	}
	if err != nil {
		return fmt.Errorf("create cgroup %s: %w", name, err)
	}
	return nil
}

// cgroupProcesses returns the processes in a cgroup; none when there is no such cgroup.
func cgroupProcesses(name string) ([]int, error) {
	pids, err := processesIn(cgroupDirs(name))
	if err != nil {
		return nil, fmt.Errorf("list the processes of cgroup %s: %w", name, err)
	}
	return pids, nil
}

// removeCgroup removes an empty cgroup, if it exists, and the one above it, which was made
// with it, unless something else is in that.
func removeCgroup(name string) error {
	var errs []error
	for _, dir := range cgroupDirs(name) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
		_ = os.Remove(filepath.Dir(dir))
	}
	return errors.Join(errs...)
}

// cgroupDirs are the directories of a cgroup: one in version 2, one in each hierarchy in
// version 1.
func cgroupDirs(name string) []string {
	if cgroups.Mode() == cgroups.Unified {
		return []string{filepath.Join(unified, name)}
	}
	hierarchies, err := cgroup1.Default()
	if err != nil {
		return nil // no cgroups at all
	}
	var dirs []string
	for _, h := range hierarchies {
		if h, ok := h.(interface{ Path(string) string }); ok {
			dirs = append(dirs, h.Path(name))
		}
	}
	return dirs
}

// processesIn lists the processes of the cgroups at dirs, each once.
func processesIn(dirs []string) ([]int, error) {
	var pids []int
	for _, dir := range dirs {
		raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, word := range strings.Fields(string(raw)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}
