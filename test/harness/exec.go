package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Cmd is a command that runs in a host. It is an exec.Cmd whose Start enters the host's
// namespaces.
type Cmd struct {
	*exec.Cmd
	host       *Host
	afterStart func()
}

// Command is a program to run in the host, with an environment that holds nothing of the
// developer's. When ctx ends the program gets SIGTERM, and 10 s later SIGKILL.
func (h *Host) Command(ctx context.Context, path string, args ...string) *Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = plainEnv()
	cmd.Dir = "/"
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return &Cmd{Cmd: cmd, host: h}
}

// K3m is dist/k3m with a sub-command, pointed at the host's node by its environment.
func (h *Host) K3m(ctx context.Context, args ...string) *Cmd {
	cmd := h.Command(ctx, h.lab.Dist, args...)
	cmd.Env = append(cmd.Env, "K3M_DATA_DIR="+h.DataDir, "K3M_RUN_DIR="+h.RunDir,
		"KUBECACHEDIR="+filepath.Join(h.Dir, "kubecache"))
	return cmd
}

// Start starts the command as a child of this process in the host's namespaces.
func (c *Cmd) Start() error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread is spoilt and ends with the goroutine. New threads
		// are started from another one, so the PID namespace harms nothing.
		runtime.LockOSThread()
		if err := c.host.enter(); err != nil {
			done <- fmt.Errorf("enter test host %s: %w", c.host.Name, err)
			return
		}
		done <- c.Cmd.Start()
	}()
	err := <-done
	if c.afterStart != nil {
		c.afterStart()
	}
	return err
}

// Run starts the command and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// CombinedOutput runs the command and gives back what it wrote.
func (c *Cmd) CombinedOutput() (string, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.String(), err
}

// Output runs the command and gives back its standard output; an error quotes its
// standard error.
func (c *Cmd) Output() (string, error) {
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", c.Cmd, err, errs.String())
	}
	return out.String(), err
}

// enter moves the calling thread into the host's namespaces (the PID namespace: its
// future children). A thread may change its mount namespace only when it shares its root
// and working directory with no other.
func (h *Host) enter() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	var fds []int
	for _, ns := range []string{"pid", "uts", "net", "mnt"} {
		fd, err := unix.Open(h.proc("ns/"+ns), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("open", err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	for _, fd := range fds {
		if err := unix.Setns(fd, 0); err != nil {
			return os.NewSyscallError("setns", err)
		}
	}
	return nil
}
