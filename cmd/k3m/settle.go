package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settleAfter is how long after the node is ready what only a boot needs is given back:
	// the components' first requests and the controllers' first rounds are over by then. It
	// is one timer, once.
	settleAfter = 20 * time.Second
	// steadyGCPercent is the garbage collector's goal (see GOGC) from then on. The core's
	// heap is some 130 MB that hardly change, and an idle node makes little garbage: a
	// smaller reserve saves some 65 MB and costs a collection each some minutes.
	steadyGCPercent = 50
)

// settle gives back to the host, once, what the boot needed and the rest of the process's life
// does not: the heap's reserve, and the pages of the executable. Those that are needed after
// all come back from the file, at the next touch.
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
	if err := releaseExecutable(); err != nil {
		s.log.Debug("the executable's pages stay in memory", "error", err)
	}
}

// releaseExecutable asks the kernel to reclaim the pages of the process's own executable.
func releaseExecutable() error {
	executable, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
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
			return fmt.Errorf("read /proc/self/maps: %w", err)
		}
		if strings.Contains(mode, "w") {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_PAGEOUT); errno != 0 {
			return os.NewSyscallError("madvise", errno)
		}
	}
	return lines.Err()
}
