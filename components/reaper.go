package components

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/k3m-io/k3m/components/cgroup"
)

// reaper is the core's handle on `k3m-launch reap`, the process that ends plugins when
// the core is gone.
type reaper struct {
	launcher, lock, log string
	logger              hclog.Logger

	mu      sync.Mutex
	groups  []cgroup.Group
	pipe    *os.File // its end tells the reaper to act
	closing bool
	watch   sync.WaitGroup
}

// startReaper returns when the reaper watches, which is after that of an earlier core has
// ended. The earlier one ends as soon as its groups have no processes.
func startReaper(launcher, lock, log string, logger hclog.Logger) (*reaper, error) {
	r := &reaper{launcher: launcher, lock: lock, log: log, logger: logger}
	if err := r.start(); err != nil {
		return nil, err
	}
	return r, nil
}

// start is called with the lock held, or before there are other users.
func (r *reaper) start() error {
	stdin, pipe, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start reaper: %w", err)
	}
	defer stdin.Close()
	// Not the core's own standard error: who waits for its end would wait for the reaper.
	stderr, err := os.OpenFile(r.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		pipe.Close()
		return fmt.Errorf("start reaper: %w", err)
	}
	defer stderr.Close()
	cmd := &exec.Cmd{
		Path: r.launcher, Args: []string{"k3m-launch", "reap", r.lock}, Dir: "/", Env: []string{"PATH=" + minimalPath, "GOMAXPROCS=1"},
		Stdin: stdin, Stderr: stderr, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		pipe.Close()
		return fmt.Errorf("start reaper: %w", err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); strings.TrimSpace(line) != "watching" {
		pipe.Close()
		err = errors.Join(err, cmd.Wait())
		said, _ := os.ReadFile(r.log)
		return fmt.Errorf("start reaper: %w%s", err, quoted(strings.TrimSpace(string(said))))
	}
	r.pipe = pipe
	r.watch.Go(func() { r.follow(cmd) })
	for _, g := range r.groups {
		if err := r.write(g); err != nil {
			return err
		}
	}
	return nil
}

// follow starts another reaper when one dies.
func (r *reaper) follow(cmd *exec.Cmd) {
	err := cmd.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return
	}
	r.logger.Warn("the reaper died, starting another", "error", err)
	r.pipe.Close()
	if err := r.start(); err != nil {
		r.logger.Error("nothing will end the plugins if k3m is killed", "error", err)
	}
}

// add tells the reaper of a group before the first process is started in it.
func (r *reaper) add(g cgroup.Group) error {
	if len(g) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, have := range r.groups {
		if have[0] == g[0] {
			return nil
		}
	}
	r.groups = append(r.groups, g)
	return r.write(g)
}

func (r *reaper) write(g cgroup.Group) error {
	line, err := json.Marshal(g)
	if err == nil {
		_, err = r.pipe.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("tell the reaper of cgroup %s: %w", g[0], err)
	}
	return nil
}

// close ends the reaper, which ends and removes what is left in the groups.
func (r *reaper) close() {
	r.mu.Lock()
	r.closing = true
	r.pipe.Close()
	r.mu.Unlock()
	r.watch.Wait()
}
