package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// settleAfter is how long after the node is ready what only a boot needs is given back:
	// the components' first requests and the controllers' first rounds are over by then. It
	// is one timer, once.
	settleAfter = 20 * time.Second
	// steadyGCPercent is the garbage collector's goal (see GOGC) from then on. The core's
	// heap is some 130 MB that hardly change, and an idle node makes little garbage: a
	// smaller reserve saves some 100 MB and costs a collection each minute or two.
	steadyGCPercent = 25
	// bootGCPercent is the goal until then. A boot makes most of the garbage of a process's life
	// among what stays for ever, and what it leaves in pieces is never whole again: a smaller
	// reserve keeps the pieces few, and saves some 20 MB for good.
	bootGCPercent = 50
)

// settle gives back to the host, once, what the boot needed and the rest of the process's life
// does not: the heap's reserve, and the pages of the executables, the components' too. Those
// that are needed after all come back from the file, at the next touch.
func (s *server) settle(ctx context.Context) {
	timer := time.NewTimer(settleAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	debug.SetGCPercent(steadyGCPercent)
	debug.FreeOSMemory()
	pids := []int{os.Getpid()}
	for _, c := range s.components.Status() {
		if c.PID != 0 {
			pids = append(pids, c.PID)
		}
	}
	for _, pid := range pids {
		if err := releaseExecutable(pid); err != nil {
			s.log.Debug("an executable's pages stay in memory", "pid", pid, "error", err)
		}
	}
}

// releaseExecutable asks the kernel to reclaim the pages of a process's own executable. Those
// that other processes have mapped, too, stay.
func releaseExecutable(pid int) error {
	executable, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		// 00400000-04ab3000 r-xp 00000000 fe:00 1234  /var/lib/k3m/…/bin/k3m
		if !strings.HasSuffix(lines.Text(), " "+executable) {
			continue
		}
		var start, end uintptr
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &mode); err != nil {
			return fmt.Errorf("read the mappings of process %d: %w", pid, err)
		}
		if strings.Contains(mode, "w") {
			continue
		}
		span := unix.RemoteIovec{Base: start, Len: int(end - start)}
		_, _, errno := unix.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&span)), 1, unix.MADV_PAGEOUT, 0, 0)
		if errno != 0 {
			return os.NewSyscallError("process_madvise", errno)
		}
	}
	return lines.Err()
}
