package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// keeper is the test process's end of the keeper process. The keeper is told, line by
// line, what the test process owns outside of namespaces, and removes it when its
// standard input ends: because the lab was closed, or because the test process died.
type keeper struct {
	mu  sync.Mutex
	cmd *exec.Cmd
	in  io.WriteCloser
}

func startKeeper() (*keeper, error) {
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe") // it ends with its input
	cmd.Args = []string{keeperRole}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the test process
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	return &keeper{cmd: cmd, in: in}, nil
}

// keep tells the keeper about something: a host's first process ("pid"), a directory
// ("dir"), or the name of a cgroup that is removed in each hierarchy ("cgroup").
func (k *keeper) keep(what, value string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, err := fmt.Fprintf(k.in, "%s %s\n", what, value)
	return err
}

// close makes the keeper clean up, waits for it, and gives back what it couldn't remove.
func (k *keeper) close() error {
	k.in.Close()
	if err := k.cmd.Wait(); err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	return nil
}

// runKeeper is the keeper process.
func runKeeper() error {
	var pids []int
	var dirs, cgroups []string
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		what, value, _ := strings.Cut(lines.Text(), " ")
		switch what {
		case "pid":
			if pid, err := strconv.Atoi(value); err == nil {
				if fd, err := unix.PidfdOpen(pid, 0); err == nil {
					pids = append(pids, fd)
				}
			}
		case "dir":
			dirs = append(dirs, value)
		case "cgroup":
			cgroups = append(cgroups, value)
		}
	}
	// The hosts end by themselves with their own pipes. A pidfd never names another
	// process, so a kill to make sure harms nobody.
	for _, fd := range pids {
		if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000) // the cgroup tells if it still lives
		}
	}
	var errs []error
	for _, name := range cgroups {
		errs = append(errs, removeCgroup(name, 10*time.Second))
	}
	for _, dir := range dirs {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// removeCgroup removes a cgroup and all below it from each hierarchy. A cgroup is busy
// for a moment after its last process was reaped, and the kernel has no event for the
// end of that.
func removeCgroup(name string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for _, top := range cgroupDirs(name) {
		for {
			err := removeTree(top)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup: %w", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

func removeTree(top string) error {
	entries, err := os.ReadDir(top)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(top, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(top)
}

// cgroupDirs are the directories of a cgroup that exist, one a hierarchy.
func cgroupDirs(name string) []string {
	var dirs []string
	candidates, _ := filepath.Glob("/sys/fs/cgroup/*/" + name) // v1, and v2 beside it
	for _, dir := range append(candidates, filepath.Join("/sys/fs/cgroup", name)) {
		if st, err := os.Lstat(dir); err == nil && st.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
