package hostcheck

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// controllers are those that a node can't do without, and those that it would rather have.
var (
	neededControllers = []string{"cpu", "cpuset", "memory", "pids"}
	wantedControllers = []string{"hugetlb"}
)

func checkCgroups(_ context.Context, o *Options) []Finding {
	have, version := o.cgroupControllers()
	if version == 0 {
		return []Finding{failure("no cgroup hierarchy is mounted below /sys/fs/cgroup", "mount it (mount -t cgroup2 cgroup2 /sys/fs/cgroup), or run an init system that does")}
	}
	var found []Finding
	var missing []string
	for _, c := range neededControllers {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		fix := "take a kernel that has them, or have your container engine pass them on"
		if slices.Contains(missing, "memory") {
			fix = "start the kernel with cgroup_enable=memory cgroup_memory=1 on its command line (/boot/firmware/cmdline.txt on a Raspberry Pi), then reboot"
		}
		found = append(found, failure(fmt.Sprintf("cgroup version %d lacks the controllers %s", version, list(missing)), fix))
	}
	for _, c := range wantedControllers {
		if !slices.Contains(have, c) {
			found = append(found, warning("the cgroup controller "+c+" is missing: pods can't have a limit of it", "take a kernel that has it, unless you need no such pods"))
		}
	}
	if version == 1 {
		found = append(found, warning("cgroups are those of version 1, which Kubernetes is about to drop", "start the kernel with systemd.unified_cgroup_hierarchy=1, or upgrade the operating system"))
	}
	return orOK(found, fmt.Sprintf("version %d, with the controllers that pods need", version))
}

// cgroupControllers are those of version 2 if that is what containers use, else those of
// version 1 that are mounted; version 0 is neither.
func (o *Options) cgroupControllers() (controllers []string, version int) {
	if o.exists("sys", "fs", "cgroup", "cgroup.controllers") {
		return strings.Fields(o.read("sys", "fs", "cgroup", "cgroup.controllers")), 2
	}
	for line := range strings.Lines(o.read("proc", "self", "mountinfo")) {
		// … - cgroup cgroup rw,cpu,cpuacct (proc_pid_mountinfo(5))
		_, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(after)
		if len(fields) == 3 && fields[0] == "cgroup" {
			controllers = append(controllers, strings.Split(fields[2], ",")...)
			version = 1
		}
	}
	return controllers, version
}

// Less memory than smallMemory is too little for a server with its components, of which an
// idle one takes some 250 MB.
const smallMemory = 512 << 20

func checkMemory(_ context.Context, o *Options) []Finding {
	total, known := o.memory("MemTotal")
	if !known {
		return skipped("the amount of memory can't be read")
	}
	if total < smallMemory {
		return []Finding{warning(fmt.Sprintf("%s of memory is little: a server takes half of 512 MiB before the first pod", size(total)), "give the machine more, or disable components")}
	}
	return ok(size(total))
}

// memory is a line of /proc/meminfo, in bytes.
func (o *Options) memory(name string) (uint64, bool) {
	for line := range strings.Lines(o.read("proc", "meminfo")) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == name+":" {
			kib, err := strconv.ParseUint(fields[1], 10, 53)
			return kib << 10, err == nil
		}
	}
	return 0, false
}

func size(bytes uint64) string {
	switch {
	case bytes >= 10<<30:
		return fmt.Sprintf("%d GiB", bytes>>30)
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}

func checkSwap(_ context.Context, o *Options) []Finding {
	lines := strings.Split(o.read("proc", "swaps"), "\n")
	if len(lines) < 2 {
		return ok("there is none")
	}
	var areas []string
	for _, line := range lines[1:] {
		if fields := strings.Fields(line); len(fields) > 0 {
			areas = append(areas, fields[0])
		}
	}
	if strings.HasPrefix(strings.Join(areas, ""), "/dev/zram") {
		return ok("compressed memory only: " + list(areas))
	}
	return []Finding{warning("the machine swaps to "+list(areas)+": pods do not, but the control plane may be slowed down by it",
		"swapoff -a, and take the lines out of /etc/fstab, unless you want it")}
}

const (
	// minFree is what a start needs: the distribution unpacked, the datastore, some images.
	minFree = 1 << 30
	// evictionShare is where the kubelet begins to evict pods: see core/agent.
	evictionShare = 0.05
)

// fileSystems that are no good for a datastore or images, by statfs(2)'s numbers.
var fileSystems = map[int64]struct {
	name  string
	level Level
	why   string
}{
	unix.NFS_SUPER_MAGIC:       {"NFS", Warning, "its locks and syncs are not to be relied on for a datastore, and overlayfs does not work on it"},
	unix.SMB_SUPER_MAGIC:       {"SMB", Failure, "it keeps neither owners nor modes"},
	unix.CIFS_SUPER_MAGIC:      {"CIFS", Failure, "it keeps neither owners nor modes"},
	unix.SMB2_SUPER_MAGIC:      {"SMB", Failure, "it keeps neither owners nor modes"},
	unix.MSDOS_SUPER_MAGIC:     {"FAT", Failure, "it keeps neither owners nor modes"},
	unix.TMPFS_MAGIC:           {"tmpfs", Warning, "it is empty after a reboot, the cluster's state with it"},
	unix.RAMFS_MAGIC:           {"ramfs", Warning, "it is empty after a reboot, the cluster's state with it"},
	unix.OVERLAYFS_SUPER_MAGIC: {"overlayfs", Warning, "images can't use overlayfs on it, and what a container engine put there goes with the container"},
}

func checkDisk(_ context.Context, o *Options) []Finding {
	dir := existing(o.DataDir)
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return skipped(fmt.Sprintf("look at %s: %v", dir, err))
	}
	return diskFindings(o.DataDir, &fs)
}

func diskFindings(dir string, fs *unix.Statfs_t) []Finding {
	var found []Finding
	elsewhere := "choose a --data-dir on a local disk with ext4 or xfs"
	if bad, is := fileSystems[int64(fs.Type)]; is { //nolint:unconvert // its type depends on the architecture
		found = append(found, Finding{Level: bad.level, Found: fmt.Sprintf("%s is on %s: %s", dir, bad.name, bad.why), Fix: elsewhere})
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		found = append(found, failure(dir+" is on a file system that is mounted read-only", "mount it for writing, or "+elsewhere))
	}
	if fs.Flags&unix.ST_NOEXEC != 0 {
		found = append(found, failure(dir+" is on a file system that is mounted with noexec: k3m keeps its executables there", "mount it without noexec, or "+elsewhere))
	}
	free := fs.Bavail * uint64(fs.Bsize) //nolint:gosec // a block has a size
	share, inodes := 1.0, 1.0
	if fs.Blocks > 0 {
		share = float64(fs.Bavail) / float64(fs.Blocks)
	}
	if fs.Files > 0 { // btrfs counts none
		inodes = float64(fs.Ffree) / float64(fs.Files)
	}
	more := "remove what is not needed (k3m image prune, old logs), or enlarge the disk"
	switch {
	case free < minFree:
		found = append(found, failure(fmt.Sprintf("%s of space is left for %s, too little to start", size(free), dir), more))
	case share < evictionShare:
		found = append(found, warning(fmt.Sprintf("%.0f %% of the space for %s is left (%s): below 5 %% the kubelet evicts pods", share*100, dir, size(free)), more))
	case share < 2*evictionShare:
		found = append(found, warning(fmt.Sprintf("%.0f %% of the space for %s is left (%s); below 5 %% the kubelet evicts pods", share*100, dir, size(free)), more))
	}
	if inodes < evictionShare {
		found = append(found, warning(fmt.Sprintf("%.0f %% of the inodes for %s are left: below 5 %% the kubelet evicts pods", inodes*100, dir), "remove small files that are not needed"))
	}
	return orOK(found, size(free)+" of space is left for "+dir)
}

// What a node takes of inotify: some 32 instances, and watches with each pod.
const (
	fewInstances = 256
	fewWatches   = 65536
)

func checkInotify(_ context.Context, o *Options) []Finding {
	var found []Finding
	for _, limit := range []struct {
		name string
		few  int64
	}{{"max_user_instances", fewInstances}, {"max_user_watches", fewWatches}} {
		if n, known := o.number("proc", "sys", "fs", "inotify", limit.name); known && n < limit.few {
			setting := "fs.inotify." + limit.name
			found = append(found, warning(fmt.Sprintf("%s is %d: with many pods, `too many open files` and `no space left on device` come from there", setting, n),
				fmt.Sprintf("sysctl -w %[1]s=%[2]d, and a line %[1]s=%[2]d in /etc/sysctl.d/90-k3m.conf to keep it", setting, 8*limit.few)))
		}
	}
	return orOK(found, "the limits are high enough")
}

// fewFiles is what a server with a hundred pods needs.
const fewFiles = 65536

func checkOpenFiles(_ context.Context, o *Options) []Finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return skipped(err.Error())
	}
	if held, known := o.capabilities(); limit.Max < fewFiles && (!known || held&(1<<unix.CAP_SYS_RESOURCE) == 0) {
		return []Finding{warning(fmt.Sprintf("this process may open %d files", limit.Max), "raise the limit (ulimit -n 1048576, or LimitNOFILE=1048576 in the service unit)")}
	}
	return ok("the limits are high enough")
}
