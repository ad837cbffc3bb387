package components

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"
	"github.com/k3m-io/k3m/components/cgroup"
	"github.com/k3m-io/k3m/components/launch"
	"github.com/k3m-io/k3m/sdk/client"
	"golang.org/x/time/rate"
)

const (
	// maxHandshake bounds the first line of standard output.
	maxHandshake = 8 << 10
	// pipeGrace is how long a child that outlives its plugin (a shim) may go on to hold
	// the plugin's standard streams before k3m lets go of them.
	pipeGrace = 250 * time.Millisecond
	// A plugin that writes more than this to its standard streams is slowed down, so that
	// one that floods them can't take the core's time and the log's disk.
	outputPerSecond = 1 << 20
	outputBurst     = 8 << 20
	// minimalPath is the PATH of plugins.
	minimalPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	envSockets  = "PLUGIN_UNIX_SOCKET_DIR" // go-plugin's
)

// launchRunner is go-plugin's way to a process, with k3m-launch in between. It owns the
// process's standard streams: go-plugin sees the handshake line and nothing else, as it
// reads standard error at the wrong levels and waits for ever for streams that a
// grandchild holds open.
type launchRunner struct {
	launcher  string
	spec      launch.Spec
	env       []string
	socketDir string
	group     cgroup.Group
	attr      *syscall.SysProcAttr
	output    *output
	pace      *rate.Limiter // of all that the plugin writes

	cmd       *exec.Cmd
	lifeline  *os.File // closing it tells the plugin to end
	handshake *io.PipeReader

	mu     sync.Mutex
	pid    int  // 0 before the process runs
	killed bool // Kill was called, maybe before there was a process

	exiting context.Context // ends when the process has ended
	done    chan struct{}   // closed when the process has ended and its streams are read
	exit    error           // how, to be read after done
}

var _ runner.Runner = (*launchRunner)(nil)

// adopt takes the environment that go-plugin has made up, but for the socket directory.
func (r *launchRunner) adopt(env []string) {
	r.env = append([]string{
		"PATH=" + minimalPath,
		envSockets + "=" + r.socketDir,
		client.EnvLifeline + "=" + strconv.Itoa(launch.LifelineFD),
	}, r.env...)
	for _, v := range env {
		if !strings.HasPrefix(v, envSockets+"=") {
			r.env = append(r.env, v)
		}
	}
}

// Start returns when the plugin's own file is executed, or why it is not.
func (r *launchRunner) Start(ctx context.Context) (err error) {
	encoded, err := r.spec.Encode()
	if err != nil {
		return err
	}
	var p pipes
	defer func() { p.closeChild(); p.closeParentOnError(err) }()
	specR, specW := p.toChild()
	lifeR, lifeW := p.toChild()
	outR, outW := p.fromChild()
	errR, errW := p.fromChild()
	statusR, statusW := p.fromChild()
	if p.err != nil {
		return fmt.Errorf("make pipes: %w", p.err)
	}
	if _, err := specW.Write(encoded); err != nil { // fits into the pipe
		return fmt.Errorf("write launch spec: %w", err)
	}
	specW.Close()

	r.cmd = &exec.Cmd{
		Path: r.launcher, Args: []string{"k3m-launch", "exec"}, Env: r.env, Dir: "/",
		Stdout: outW, Stderr: errW, ExtraFiles: []*os.File{specR, lifeR, statusW}, // 3, 4, 5
		SysProcAttr: r.attr,
	}
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("start launcher: %w", err)
	}
	p.closeChild()
	if r.isKilled() {
		_ = r.cmd.Process.Kill() // ReadStatus ends then
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = statusR.SetReadDeadline(deadline)
	}
	if err := launch.ReadStatus(statusR); err != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		words, _ := io.ReadAll(io.LimitReader(errR, maxLogLine))
		if len(words) > 0 { // a crash of the launcher itself
			return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(words)))
		}
		return err
	}
	statusR.Close()
	r.lifeline, r.done = lifeW, make(chan struct{})
	r.follow(outR, errR)
	return r.running()
}

func (r *launchRunner) isKilled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.killed
}

// running makes the process known to Kill.
func (r *launchRunner) running() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pid = r.cmd.Process.Pid
	if r.killed {
		return r.kill()
	}
	return nil
}

// follow reads the streams and waits for the process, in goroutines that have ended when
// done is closed.
func (r *launchRunner) follow(stdout, stderr *os.File) {
	handshakeR, handshakeW := io.Pipe()
	r.handshake = handshakeR
	var readers sync.WaitGroup
	var exited context.CancelFunc
	r.exiting, exited = context.WithCancel(context.Background())
	readers.Go(func() {
		lines := bufio.NewReaderSize(stdout, maxHandshake)
		line, _ := lines.ReadSlice('\n')
		_, _ = handshakeW.Write(line)
		_ = handshakeW.Close() // never fails
		r.copyLines(lines)
	})
	readers.Go(func() { r.copyLines(stderr) })
	go func() {
		defer close(r.done)
		r.exit = r.cmd.Wait()
		exited()
		// Children that hold the streams must not keep the plugin's death secret.
		letGo := time.AfterFunc(pipeGrace, func() { stdout.Close(); stderr.Close() })
		readers.Wait()
		letGo.Stop()
		stdout.Close()
		stderr.Close()
		r.lifeline.Close()
	}()
}

func (r *launchRunner) copyLines(from io.Reader) {
	w := r.output.writer()
	_, _ = io.Copy(pacedWriter{w, r}, from)
	w.Close()
}

// pacedWriter takes what comes in a stream of its own, once the process runs.
func (r *launchRunner) pacedWriter() io.Writer { return pacedWriter{r.output.writer(), r} }

// pacedWriter hands on what a process writes at a limited rate until it has ended: its
// last words are read at once. Waiting makes the process wait, by way of the full pipe or
// gRPC's flow control.
type pacedWriter struct {
	to *lineWriter
	of *launchRunner
}

func (p pacedWriter) Write(b []byte) (int, error) {
	for piece := range slices.Chunk(b, 32<<10) {
		_ = p.of.pace.WaitN(p.of.exiting, len(piece))
		_, _ = p.to.Write(piece) // never fails
	}
	return len(b), nil
}

// Kill ends the process, at once or as soon as it runs, and does not wait.
func (r *launchRunner) Kill(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = true
	if r.pid == 0 {
		return nil
	}
	return r.kill()
}

// kill is called with the lock held.
func (r *launchRunner) kill() error {
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	// A child that holds on to the handshake would keep go-plugin waiting.
	return r.handshake.Close() // never fails
}

// Wait is for go-plugin.
func (r *launchRunner) Wait(context.Context) error {
	<-r.done
	return r.exit
}

func (r *launchRunner) Stdout() io.ReadCloser { return r.handshake }

// Stderr is read by follow.
func (r *launchRunner) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

func (r *launchRunner) Name() string { return r.spec.Path }

// ID is empty until the process runs, which go-plugin takes for "nothing to kill".
func (r *launchRunner) ID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pid == 0 {
		return ""
	}
	return strconv.Itoa(r.pid)
}

// Diagnose adds nothing: go-plugin's guesses about architectures are the launcher's to
// make, which knows.
func (r *launchRunner) Diagnose(context.Context) string { return "" }

// PluginToHost sees the address that the plugin gives before go-plugin connects to it,
// which it would do even to end the plugin: it must be a socket of the plugin's own.
func (r *launchRunner) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" {
		return "", "", fmt.Errorf("%w: it listens on %.40q, not on a unix socket", client.ErrProtocol, network)
	}
	if filepath.Dir(address) != r.socketDir {
		return "", "", fmt.Errorf("%w: its socket %.200q is not in its own directory", client.ErrProtocol, address)
	}
	if st, err := os.Lstat(address); err != nil || st.Mode().Type() != fs.ModeSocket {
		return "", "", fmt.Errorf("%w: %.200q is not a socket", client.ErrProtocol, address)
	}
	return network, address, nil
}

func (r *launchRunner) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// pipes makes pipes between this process and a child, and closes their ends.
type pipes struct {
	parent, child []*os.File
	err           error
}

func (p *pipes) pair() (r, w *os.File) {
	r, w, err := os.Pipe()
	if err != nil {
		p.err = errors.Join(p.err, err)
		return nil, nil
	}
	return r, w
}

func (p *pipes) toChild() (r, w *os.File) {
	r, w = p.pair()
	p.child, p.parent = append(p.child, r), append(p.parent, w)
	return r, w
}

func (p *pipes) fromChild() (r, w *os.File) {
	r, w = p.pair()
	p.child, p.parent = append(p.child, w), append(p.parent, r)
	return r, w
}

// closeChild closes what is the child's once it has started.
func (p *pipes) closeChild() {
	for _, f := range p.child {
		f.Close() // nil and closed files are fine
	}
	p.child = nil
}

func (p *pipes) closeParentOnError(err error) {
	if err == nil {
		return
	}
	for _, f := range p.parent {
		f.Close()
	}
}
