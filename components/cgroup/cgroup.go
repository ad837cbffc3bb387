// Package cgroup ends the processes of a control group and removes it, in version 1 (one
// hierarchy a controller) and version 2.
//
// It imports nothing but the standard library and x/sys, since the reaper, a process that
// lives as long as the core does, is made of it. Making groups and limiting them is done
// by package components with opencontainers/cgroups.
package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Group is one control group: a directory in version 2, one in each hierarchy in
// version 1.
type Group []string

// Join moves the calling process into the group.
func (g Group) Join() error {
	for _, dir := range g {
		// "0" means the writer, whatever its pid is called in another pid namespace.
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// Procs lists the group's processes, those of groups below it included. In version 1 a
// process counts only if it is in all hierarchies of the group: one that was moved
// elsewhere in any of them, as a container's shim is, no longer belongs to it. A group
// that does not exist has no processes.
func (g Group) Procs() ([]int, error) {
	var common []int
	for i, dir := range g {
		pids, err := procsBelow(dir)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			common = pids
			continue
		}
		common = slices.DeleteFunc(common, func(pid int) bool { return !slices.Contains(pids, pid) })
	}
	return common, nil
}

func procsBelow(dir string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		more, err := readPids(filepath.Join(path, "cgroup.procs"))
		pids = append(pids, more...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the processes of cgroup %s: %w", dir, err)
	}
	return pids, nil
}

func readPids(file string) ([]int, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var pids []int
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			return nil, err
		}
		// 0 is a process of a pid namespace that the reader can't see.
		if pid > 0 {
			pids = append(pids, pid)
		}
	}
	// ENODEV: the group went away while it was read.
	if err := lines.Err(); err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, err
	}
	return pids, nil
}

// Empty waits until the group has no process or ctx ends. It waits for the processes
// themselves (pidfd), so it needs no polling and works in both versions.
func (g Group) Empty(ctx context.Context) error {
	for {
		pids, err := g.Procs()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if err := waitProcs(ctx, pids); err != nil {
			return fmt.Errorf("wait for processes %v of cgroup %s: %w", pids, g[0], err)
		}
	}
}

// Kill ends all processes of the group and waits until they are gone. Processes that
// appear meanwhile are ended too.
func (g Group) Kill(ctx context.Context) error {
	for {
		pids, err := g.Procs()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		if err := g.signalAll(pids); err != nil {
			return err
		}
		if err := waitProcs(ctx, pids); err != nil {
			return fmt.Errorf("wait for killed processes %v of cgroup %s: %w", pids, g[0], err)
		}
	}
}

// signalAll sends SIGKILL. Version 2 has a file that does it atomically, fork bombs
// included.
func (g Group) signalAll(pids []int) error {
	if len(g) == 1 {
		err := os.WriteFile(filepath.Join(g[0], "cgroup.kill"), []byte("1"), 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("kill cgroup: %w", err)
		}
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d of cgroup %s: %w", pid, g[0], err)
		}
	}
	return nil
}

// Remove removes the group, which must have no processes, and the groups below it. A
// group that does not exist is removed already.
func (g Group) Remove() error {
	var errs []error
	for _, dir := range g {
		if err := removeBelow(dir); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

func removeBelow(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeBelow(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	// A process that has just been reaped may hold its group for some microseconds more
	// (EBUSY); there is no event for its end.
	for wait := time.Millisecond; ; wait *= 2 {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || wait > 128*time.Millisecond {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		time.Sleep(wait)
	}
}
