package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Node is a k3m process in a host.
type Node struct {
	Host *Host
	// Name is the Kubernetes node's name, the host's.
	Name string
	// Started is when the process was started, on the monotonic clock.
	Started time.Time

	args   []string
	log    string
	cmd    *Cmd
	done   chan struct{}
	status error // valid when done is closed
}

// Serve starts `k3m server` with the host's paths and further arguments. It does not
// wait for anything; see WaitReady. The process is stopped before the host is closed.
func (h *Host) Serve(tb TB, args ...string) *Node {
	tb.Helper()
	if err := h.LinkBundle(); err != nil {
		tb.Fatalf("%v", err)
	}
	return h.Start(tb, append([]string{"server"}, args...)...)
}

// LinkBundle puts the unpacked dist/k3m into the data directory, as a start before
// would have.
func (h *Host) LinkBundle() error {
	if _, err := os.Stat(filepath.Join(h.DataDir, "data")); err == nil {
		return nil
	}
	unpacked, err := h.lab.unpacked()
	if err != nil {
		return err
	}
	return linkTree(filepath.Join(unpacked, "data"), filepath.Join(h.DataDir, "data"))
}

// Start starts dist/k3m with a node's sub-command and the host's paths.
func (h *Host) Start(tb TB, args ...string) *Node {
	tb.Helper()
	h.starts++
	n := &Node{Host: h, Name: h.Name, log: filepath.Join(h.Dir, "k3m.log")}
	n.args = append(args[:1:1], append(h.Flags(), args[1:]...)...)
	n.Restart(tb)
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the end of the log of %s:\n%s", n.Name, tail(n.Logs(), 20))
		}
		if n.Running() {
			n.Stop(tb)
		}
	})
	return n
}

// Restart starts the node's process again, with the same arguments, after it has ended.
func (n *Node) Restart(tb TB) {
	tb.Helper()
	logfile, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	defer logfile.Close()
	cmd := n.Host.Command(context.Background(), n.Host.lab.Dist, n.args...)
	cmd.Env = append(cmd.Env, n.Host.Env...)
	cmd.Stdout, cmd.Stderr = logfile, logfile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	done := make(chan struct{})
	n.cmd, n.done, n.Started = cmd, done, time.Now()
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start k3m: %v", err)
	}
	go func() {
		n.status = cmd.Wait()
		close(done)
	}()
}

// Flags are those that point k3m server at the host's paths and address.
func (h *Host) Flags() []string {
	ips := h.Addr.String()
	if len(h.NodeIPs) > 0 {
		var all []string
		for _, ip := range h.NodeIPs {
			all = append(all, ip.String())
		}
		ips = strings.Join(all, ",")
	}
	return []string{
		"--node-name=" + h.Name, "--node-ip=" + ips,
		"--data-dir=" + h.DataDir, "--run-dir=" + h.RunDir, "--config=" + h.ConfigFile,
		"--write-kubeconfig=" + h.Kubeconfig,
	}
}

// Done is closed when the process has ended.
func (n *Node) Done() <-chan struct{} { return n.done }

// Running tells whether the process runs.
func (n *Node) Running() bool {
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// Pid is the process ID of the core, as seen from outside of the host.
func (n *Node) Pid() int { return n.cmd.Process.Pid }

// Kill9 kills the core and waits until it is gone.
func (n *Node) Kill9() {
	_ = n.cmd.Process.Kill() // it may just have ended by itself
	<-n.done
}

// StopLimit is how long a clean stop may take.
const StopLimit = 10 * time.Second

// Stop asks the core to end with SIGTERM. It fails the test when that takes longer than
// StopLimit (the core is then killed) or when the exit code is not 0.
func (n *Node) Stop(tb TB) time.Duration {
	tb.Helper()
	start := time.Now()
	_ = n.cmd.Process.Signal(unix.SIGTERM) // it may just have ended by itself
	select {
	case <-n.done:
		if n.status != nil {
			tb.Errorf("k3m ended on SIGTERM with %v:\n%s", n.status, tail(n.Logs(), 20))
		}
	case <-time.After(StopLimit):
		tb.Errorf("k3m did not end within %s of SIGTERM:\n%s", StopLimit, tail(n.Logs(), 40))
		n.Kill9()
	}
	return time.Since(start)
}

// ExitCode waits for the process to end and gives its exit code, -1 for a signal's.
func (n *Node) ExitCode(ctx context.Context) (int, error) {
	select {
	case <-n.done:
		return n.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for k3m to end: %w", context.Cause(ctx))
	}
}

// Logs is what the host's nodes wrote to standard output and error.
func (n *Node) Logs() string {
	text, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Kubectl runs `k3m kubectl` in the host and gives its standard output.
func (n *Node) Kubectl(ctx context.Context, args ...string) (string, error) {
	return n.Host.K3m(ctx, append([]string{"kubectl", "--kubeconfig", n.Host.Kubeconfig}, args...)...).Output()
}

// Apply applies manifests with kubectl.
func (n *Node) Apply(ctx context.Context, manifests string) error {
	cmd := n.Host.K3m(ctx, "kubectl", "--kubeconfig", n.Host.Kubeconfig, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifests)
	_, err := cmd.Output()
	return err
}

// Component is one line of `k3m component list -o json`.
type Component struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Pid     int    `json:"pid"`
	Reason  string `json:"reason"`
	LastErr string `json:"lastError"`
	UID     int    `json:"uid"`
	// Restarts counts the processes after the first.
	Restarts int `json:"restarts"`

	Capabilities []string `json:"capabilities"`
}

// Ready tells whether the component serves.
func (c Component) Ready() bool { return strings.EqualFold(c.State, "ready") }

// Components asks the node for its components. Pids are those inside the host.
func (n *Node) Components(ctx context.Context) (map[string]Component, error) {
	out, err := n.Host.K3m(ctx, "component", "list", "-o", "json").Output()
	if err != nil {
		return nil, err
	}
	var list []Component
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("read the list of components: %w: %s", err, out)
	}
	byID := map[string]Component{}
	for _, c := range list {
		byID[c.ID] = c
	}
	return byID, nil
}

// Component gives one component of the node and fails the test when it is not there.
func (n *Node) Component(tb TB, ctx context.Context, id string) Component {
	tb.Helper()
	all, err := n.Components(ctx)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	c, ok := all[id]
	if !ok {
		tb.Fatalf("component %s is not among %v", id, all)
	}
	return c
}

func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			if err := os.MkdirAll(target, 0o755); err != nil {
				return err
			}
			return os.Chmod(target, info.Mode().Perm())
		case info.Mode().IsRegular():
			return os.Link(path, target)
		default:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
	})
}

func tail(text string, n int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
