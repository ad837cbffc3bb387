package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mounts returns where hierarchies of either version are; the test needs root.
func mounts(t *testing.T, version int64) []string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes cgroups")
	}
	var found []string
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && int64(st.Type) == version {
			found = append(found, dir)
		}
	}
	if len(found) == 0 {
		t.Skipf("no cgroup hierarchy of type %#x is mounted", version)
	}
	return found
}

// testGroup makes a group of the test's own.
func testGroup(t *testing.T, version int64) Group {
	t.Helper()
	var g Group
	for _, mount := range mounts(t, version) {
		dir := filepath.Join(mount, fmt.Sprintf("k3m-test-%d", os.Getpid()))
		if err := os.MkdirAll(filepath.Join(dir, "below"), 0o755); err != nil {
			t.Fatal(err)
		}
		g = append(g, dir)
		if version == unix.CGROUP2_SUPER_MAGIC {
			break
		}
	}
	t.Cleanup(func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func sleeper(t *testing.T, dirs ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(fmt.Sprint(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	return cmd
}

func TestKill(t *testing.T) {
	for name, version := range map[string]int64{"version 1": unix.CGROUP_SUPER_MAGIC, "version 2": unix.CGROUP2_SUPER_MAGIC} {
		t.Run(name, func(t *testing.T) {
			g := testGroup(t, version)
			first := sleeper(t, g...)
			var below []string
			for _, dir := range g {
				below = append(below, filepath.Join(dir, "below"))
			}
			second := sleeper(t, below...)
			want := []int{first.Process.Pid, second.Process.Pid}
			pids, err := g.Procs()
			slices.Sort(pids)
			slices.Sort(want)
			if err != nil || !slices.Equal(pids, want) {
				t.Errorf("processes %v, %v; want %v", pids, err, want)
			}

			short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if err := g.Empty(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Empty with processes: %v", err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := g.Kill(ctx); err != nil {
				t.Error(err)
			}
			if err := g.Empty(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// A shim is in the runtime's groups when it starts, and is moved out of them; one
// hierarchy is enough to be safe.
func TestMovedProcessIsNotKilled(t *testing.T) {
	g := testGroup(t, unix.CGROUP_SUPER_MAGIC)
	if len(g) < 2 {
		t.Skip("needs two hierarchies")
	}
	moved := sleeper(t, g[1:]...)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.Kill(ctx); err != nil {
		t.Error(err)
	}
	if err := moved.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("it was killed: %v", err)
	}
	_ = moved.Process.Kill()
	_ = moved.Wait()
}

func TestMissingGroup(t *testing.T) {
	g := Group{"/sys/fs/cgroup/k3m-test-that-is-not-there"}
	ctx := context.Background()
	if err := errors.Join(g.Kill(ctx), g.Empty(ctx), g.Remove()); err != nil {
		t.Error(err)
	}
	if err := (Group)(nil).Kill(ctx); err != nil {
		t.Error(err)
	}
}
