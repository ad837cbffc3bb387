package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/hashicorp/go-hclog"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/sdk"
)

// Cleanup ends this node's containers and removes all that its containerd made: their
// cgroups, networks, mounts and directories, images included. What belongs to another
// node of the host, or to another containerd, stays.
func (component) Cleanup(ctx context.Context, host *sdk.Host) error {
	facts := host.Facts()
	return sweep{
		layout:     newLayout(facts.Paths.AgentDir, facts.Paths.RunDir),
		shimCgroup: shimCgroupOf(facts.CgroupParent),
		binDir:     facts.Paths.BinDir,
		cniDirs:    []string{facts.Paths.CNIBinDir, facts.Paths.CarriedCNIDir},
		log:        host.Logger(),
	}.run(ctx)
}

// sweep removes one node's containers from the host.
type sweep struct {
	layout
	shimCgroup string
	binDir     string
	cniDirs    []string
	log        hclog.Logger
}

// run does every step, whatever became of those before it, and returns all errors.
// Nothing to remove is no error.
func (s sweep) run(ctx context.Context) error {
	if err := s.validate(); err != nil {
		return err
	}
	return errors.Join(
		s.deleteContainers(ctx, everyContainer),
		s.killShims(ctx),
		s.removeNetworks(ctx, everyNetwork),
		s.unmount(),
		s.removeDirectories(),
		removeCgroup(s.shimCgroup),
	)
}

// everyContainer is a choice of deleteContainers.
func everyContainer(string) bool { return true }

// deleteContainers has runc kill those containers that it knows in this node's state and
// that are chosen by their ID, and remove their cgroups.
func (s sweep) deleteContainers(ctx context.Context, chosen func(id string) bool) error {
	states, err := filepath.Glob(filepath.Join(s.runcRoot(), "*", "*", "state.json"))
	if err != nil {
		return err
	}
	return sideBySide(states, func(state string) error {
		id, root := filepath.Base(filepath.Dir(state)), filepath.Dir(filepath.Dir(state))
		if !chosen(id) {
			return nil
		}
		runc := exec.CommandContext(ctx, filepath.Join(s.binDir, "runc"), "--root", root, "delete", "--force", id)
		if out, err := runc.CombinedOutput(); err != nil {
			return fmt.Errorf("delete container %s: %w: %s", id, err, strings.TrimSpace(string(out)))
		}
		s.log.Info("deleted a container", "id", id)
		return nil
	})
}

// atOnce is how many containers and networks are removed at the same time: most of it is waiting
// for the kernel, and a node may have hundreds.
const atOnce = 16

// sideBySide does the same to all items, whatever becomes of each, and returns all errors.
func sideBySide[T any](items []T, do func(T) error) error {
	errs := make([]error, len(items))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, item := range items {
		group.Go(func() error {
			errs[i] = do(item)
			return nil
		})
	}
	_ = group.Wait() // none of them returns one
	return errors.Join(errs...)
}

// killShims ends all processes that serve this node's containers, and waits for them.
func (s sweep) killShims(ctx context.Context) error {
	pids, err := cgroupProcesses(s.shimCgroup)
	if err != nil {
		return err
	}
	shims, err := shimsOf(s.socket)
	if err != nil {
		return err
	}
	for _, shim := range shims {
		pids = append(pids, shim.pid)
	}
	slices.Sort(pids)
	var errs []error
	for _, pid := range slices.Compact(pids) {
		if err := killAndWait(ctx, pid); err != nil {
			errs = append(errs, fmt.Errorf("kill shim %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// killAndWait returns when the process has ended, or at ctx's deadline.
func killAndWait(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	for {
		left := 10 * time.Second // a killed process that is not gone by then hangs in the kernel
		if deadline, ok := ctx.Deadline(); ok {
			left = min(left, max(0, time.Until(deadline)))
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err == nil:
			return context.DeadlineExceeded
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

// unmount takes down every mount below this node's directories: root filesystems,
// network namespaces, temporary looks into images.
func (s sweep) unmount() error {
	var errs []error
	for _, dir := range []string{s.state, s.root} {
		mounts, err := mountsBelow(dir)
		if err != nil {
			return err
		}
		for _, m := range slices.Backward(mounts) { // the latest is on top
			if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
			}
		}
	}
	return errors.Join(errs...)
}

// mountsBelow lists the mounts at and below dir, in the order in which they were made.
func mountsBelow(dir string) ([]*mountinfo.Info, error) {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var mounts []*mountinfo.Info
	if err == nil {
		mounts, err = mountinfo.GetMounts(mountinfo.PrefixFilter(real))
	}
	if err != nil {
		return nil, fmt.Errorf("find mounts below %s: %w", dir, err)
	}
	return mounts, nil
}

// removeDirectories removes the node's directories, but not through a mount that could
// not be taken down.
func (s sweep) removeDirectories() error {
	var errs []error
	for _, dir := range []string{s.state, s.shimSockets, s.root} {
		mounts, err := mountsBelow(dir)
		switch {
		case err != nil:
		case len(mounts) > 0:
			err = fmt.Errorf("remove %s: %s is still mounted", dir, mounts[0].Mountpoint)
		default:
			err = os.RemoveAll(dir)
		}
		errs = append(errs, err)
	}
	for _, dir := range []string{filepath.Join(libcni.CacheDir, "results"), libcni.CacheDir} {
		_ = os.Remove(dir) // unless records of another node's, or of another runtime's, are in it
	}
	if filepath.Dir(s.shimSockets) == shimSocketsElsewhere {
		_ = os.Remove(shimSocketsElsewhere) // unless it is another node's too
	}
	return errors.Join(errs...)
}
