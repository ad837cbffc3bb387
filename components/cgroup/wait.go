package cgroup

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// waitProcs waits until all of the processes are gone, or ctx ends.
func waitProcs(ctx context.Context, pids []int) error {
	// Cancelling ctx closes the pipe's write end, which wakes poll.
	wake, canceled, err := os.Pipe()
	if err != nil {
		return err
	}
	defer wake.Close()
	stop := context.AfterFunc(ctx, func() { canceled.Close() })
	defer func() {
		if stop() {
			canceled.Close()
		}
	}()

	for _, pid := range pids {
		if err := waitProc(ctx, pid, int(wake.Fd())); err != nil {
			return err
		}
	}
	return nil
}

func waitProc(ctx context.Context, pid, wake int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
	}
}
