package launch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/k3m-io/k3m/components/cgroup"
	"golang.org/x/sys/unix"
)

// Grace is how long plugins have to end by themselves once the core is gone.
const Grace = 5 * time.Second

// The reaper ends a core's plugins when the core can't do it any more. It is in a session
// of its own, so that what ends the core does not end it.
//
// Its standard input is a pipe that only the core writes to: one line for each cgroup
// that a component is about to be started in, a JSON array of its directories. When the
// pipe ends, the core is gone. The plugins notice the same (their lifeline ends) and stop
// by themselves; the reaper waits for them, kills after the grace period what is left,
// removes the groups and ends. It holds a lock while it lives: the next core on the same
// node waits for the lock before it starts plugins in groups of the same names.
func mainReap(lockFile string) int {
	// The core's end, not a signal that was meant for the core, ends the reaper.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)
	lock, err := os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "k3m-launch: reap:", err)
		return 1
	}
	defer lock.Close()
	if err := flock(lock); err != nil {
		fmt.Fprintln(os.Stderr, "k3m-launch: reap: lock:", err)
		return 1
	}
	// The core waits for this line.
	if _, err := fmt.Println("watching"); err != nil {
		return 1
	}
	groups, err := readGroups(os.Stdin)
	if err := errors.Join(err, endGroups(groups, Grace)); err != nil {
		fmt.Fprintln(os.Stderr, "k3m-launch: reap:", err)
		return 1
	}
	return 0
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// readGroups returns when the pipe has ended.
func readGroups(r io.Reader) ([]cgroup.Group, error) {
	var groups []cgroup.Group
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var g cgroup.Group
		if err := json.Unmarshal(lines.Bytes(), &g); err != nil || len(g) == 0 {
			return groups, fmt.Errorf("read cgroup %q: %w", lines.Text(), err)
		}
		if !slices.ContainsFunc(groups, func(have cgroup.Group) bool { return slices.Equal(have, g) }) {
			groups = append(groups, g)
		}
	}
	return groups, lines.Err()
}

// endGroups waits for the groups' processes, kills those that are left, and removes the
// groups.
func endGroups(groups []cgroup.Group, grace time.Duration) error {
	patience, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	for _, g := range groups {
		_ = g.Empty(patience) // what is not empty by then is killed
	}
	var errs []error
	for _, g := range groups {
		errs = append(errs, endGroup(g))
	}
	for _, g := range groups {
		for _, dir := range g {
			_ = unix.Rmdir(filepath.Dir(dir)) // the parent, unless pods or shims are in it
		}
	}
	return errors.Join(errs...)
}

func endGroup(g cgroup.Group) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := g.Kill(ctx); err != nil {
		return err
	}
	return g.Remove()
}
