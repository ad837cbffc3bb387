package components

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"github.com/k3m-io/k3m/components/cgroup"
	"github.com/k3m-io/k3m/components/launch"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

const (
	// askTimeout is how long a plugin may take to answer what it knows without working:
	// who it is, whether it likes its configuration.
	askTimeout = 10 * time.Second
	// exitPatience is how long a process may take to exit after its component stopped.
	exitPatience = time.Second
	// killTimeout is how long the kernel may take to end killed processes.
	killTimeout = 10 * time.Second
	// maxOpenFiles is the soft limit of open files; the hard one stays the core's.
	maxOpenFiles = 1 << 20
)

// refusedError is why a plugin may not run: what it is or says is not what is on record.
// Starting it again would not help.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// processSpec is what startProcess needs to know.
type processSpec struct {
	launcher     string
	spec         launch.Spec
	attr         *syscall.SysProcAttr
	env          []string
	socketDir    string
	group        cgroup.Group
	output       *output
	startTimeout time.Duration
}

// process is one running plugin process.
//
//	startProcess ── client's calls ── end
type process struct {
	*client.Client
	plugin   *plugin.Client
	runner   *launchRunner
	oomKills uint64 // in the group, before the start
	timeout  time.Duration
}

// startProcess launches a plugin and opens the connection to it. When it fails, nothing
// of the process is left.
func startProcess(ctx context.Context, s processSpec) (*process, error) {
	r := &launchRunner{
		launcher: s.launcher, spec: s.spec, env: s.env, socketDir: s.socketDir,
		group: s.group, attr: s.attr, output: s.output,
		pace: rate.NewLimiter(outputPerSecond, outputBurst),
	}
	config := &plugin.ClientConfig{
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, unused string) (runner.Runner, error) {
			os.Remove(unused) // go-plugin's socket directory: the component has its own
			r.adopt(cmd.Env)
			return r, nil
		},
		// go-plugin's own messages tell nothing that k3m doesn't.
		Logger:       hclog.New(&hclog.LoggerOptions{Level: hclog.Off}),
		StartTimeout: s.startTimeout,
		// What a plugin writes to its streams by way of gRPC: the SDK's don't, but klog in
		// a plugin without the SDK does. go-plugin would throw it away.
		SyncStdout:       r.pacedWriter(),
		SyncStderr:       r.pacedWriter(),
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: filepath.Dir(s.socketDir)},
	}
	client.Configure(config)
	p := &process{plugin: plugin.NewClient(config), runner: r, oomKills: oomKills(s.group), timeout: s.startTimeout}

	// go-plugin takes no context: end the process instead.
	stop := context.AfterFunc(ctx, func() { _ = r.Kill(ctx) })
	c, err := client.Connect(p.plugin, s.socketDir)
	if stop(); err != nil {
		endErr := p.end(0)
		return nil, errors.Join(p.startError(ctx, err), endErr)
	}
	p.Client = c
	return p, nil
}

func (p *process) startError(ctx context.Context, err error) error {
	var failure *launch.Failure
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &failure) && failure.Refused, errors.Is(err, client.ErrProtocol):
		return refusedError{err}
	case errors.As(err, &failure):
		return fmt.Errorf("launch plugin: %w", failure)
	case errors.Is(err, client.ErrGone):
		return p.death("before it shook hands")
	case errors.Is(err, client.ErrStartTimeout):
		return fmt.Errorf("the plugin did not shake hands within %s%s", p.timeout, quoted(p.runner.output.lastWords()))
	}
	return err
}

func quoted(words string) string {
	if words == "" {
		return ""
	}
	return "; it said: " + words
}

// died is closed when the process has ended and all that it wrote was read.
func (p *process) died() <-chan struct{} { return p.runner.done }

func (p *process) pid() int { return p.runner.pid }

// killedError is the end of a process that someone killed with a signal.
type killedError struct{ error }

// death says how the process ended, after died: "the plugin ended with exit code 2 in its
// Run; it said: …".
func (p *process) death(when string) error {
	how := "ended"
	var exit *exec.ExitError
	if errors.As(p.runner.exit, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			how = fmt.Sprintf("was killed by signal %d (%s)", int(status.Signal()), status.Signal())
		} else {
			how = fmt.Sprintf("ended with exit code %d", exit.ExitCode())
		}
	}
	switch {
	case p.outOfMemory():
		return fmt.Errorf("the plugin was killed by the kernel %s, as it went over its memory limit", when)
	case p.killedFromOutside(): // its last words say nothing of it
		return killedError{fmt.Errorf("the plugin %s %s", how, when)}
	}
	return fmt.Errorf("the plugin %s %s%s", how, when, quoted(p.runner.output.lastWords()))
}

// killedFromOutside tells whether someone sent a signal that ended the process.
func (p *process) killedFromOutside() bool {
	var exit *exec.ExitError
	if !errors.As(p.runner.exit, &exit) || p.outOfMemory() {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && (status.Signal() == unix.SIGKILL || status.Signal() == unix.SIGTERM)
}

func (p *process) outOfMemory() bool { return oomKills(p.runner.group) > p.oomKills }

// stop asks the component to end, waits for it until ctx ends, and ends the process. It
// returns the component's own complaint, if it had one.
func (p *process) stop(ctx context.Context) error {
	err := p.Stop(ctx)
	switch {
	case err == nil:
		return p.end(exitPatience)
	case errors.Is(err, client.ErrGone):
		return p.end(0)
	}
	return errors.Join(err, p.end(0))
}

// end makes sure that nothing of the process is left, its children included. A process
// that has stopped its work may take some time to end by itself.
func (p *process) end(patience time.Duration) error {
	// go-plugin's Kill asks a process that lives to shut down, and waits for the answer
	// for ever. The timer ends the process, and so the waiting.
	kill := time.AfterFunc(patience, func() { _ = p.runner.Kill(context.Background()) })
	defer kill.Stop()
	p.plugin.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	err := p.runner.group.Kill(ctx)
	if p.runner.done != nil {
		<-p.runner.done
	}
	return err
}

// launchSpec says as whom an entry's plugin is executed.
func launchSpec(e Entry, executable string, uid int, group cgroup.Group) (launch.Spec, []string, error) {
	s := launch.Spec{
		Path: executable, Args: append([]string{executable}, e.Args...), SHA256: e.SHA256,
		Cgroup: group, UID: uid, GID: uid, Umask: 0o077,
		Limits: []launch.Limit{
			{Resource: unix.RLIMIT_CORE, Value: 0},
			{Resource: unix.RLIMIT_NOFILE, Value: maxOpenFiles, SoftOnly: true},
		},
	}
	if isRuntime(e.Info) {
		// A container's root filesystem needs modes as they were asked for.
		s.KeepPrivileges, s.Umask = true, 0o022
		s.Limits[0].SoftOnly = true // containers may want core files
		return s, nil, nil
	}
	have, lack, err := availableCapabilities(e.Info.Privileges.Capabilities)
	s.Capabilities = have
	return s, lack, err
}

// checkInfo compares what a plugin says of itself with what is on record.
func checkInfo(recorded Entry, said sdk.Info) error {
	if d := recorded.Info.Differences(said); len(d) > 0 {
		return refusedError{fmt.Errorf("it says another info than the one on record (%s); %s", strings.Join(d, "; "), recorded.mend())}
	}
	return nil
}
