package plugintest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// peer is a plugin that was started, whichever way.
type peer struct {
	*client.Client
	// loseHost makes it look to the plugin as if the host had died.
	loseHost func()
	// gone is closed when the plugin's process has ended; in process, when the SDK says
	// that a process would end now.
	gone <-chan struct{}
	// pid is zero in process.
	pid int
}

// starter starts a fresh plugin that lives no longer than t.
type starter func(t *testing.T) *peer

// inProcess serves o.New() inside the test's own process.
func inProcess(o Options) starter {
	return func(t *testing.T) *peer {
		t.Helper()
		gone := make(chan struct{})
		listener := bufconn.Listen(1 << 16)
		server := grpc.NewServer()
		logger := hclog.New(&hclog.LoggerOptions{Output: newOutput(t), Level: hclog.Debug})
		sdk.Register(server, o.New(), logger, func() { close(gone) })
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		conn, err := grpc.NewClient("passthrough:///plugin",
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = conn.Close()
			server.Stop()
			if err := <-served; err != nil {
				t.Errorf("serve in process: %v", err)
			}
		})
		return &peer{Client: client.New(conn), loseHost: func() { _ = conn.Close() }, gone: gone}
	}
}

// asExecutable starts o.Executable as k3m does, but for the launcher: with an empty
// environment, mutual TLS and a lifeline.
func asExecutable(o Options) starter {
	return func(t *testing.T) *peer {
		t.Helper()
		return launch(t, o, nil)
	}
}

// launch starts the executable; change may alter the command before.
func launch(t *testing.T, o Options, change func(*exec.Cmd)) *peer {
	t.Helper()
	lifeline, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := os.MkdirTemp("", "k3m") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	// Not ended by the test: to see it end by itself is part of the contract.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), o.Executable, o.Args...)
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{lifeline}
	cmd.Env = []string{client.EnvLifeline + "=3", client.EnvLogLevel + "=info", plugin.EnvUnixSocketDir + "=" + sockets}
	if change != nil {
		change(cmd)
	}
	if c := cmd.SysProcAttr; c != nil && c.Credential != nil {
		if err := os.Chown(sockets, int(c.Credential.Uid), int(c.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	config := &plugin.ClientConfig{
		Cmd: cmd, StartTimeout: o.ReadyTimeout, Stderr: newOutput(t), Logger: hclog.NewNullLogger(),
	}
	client.Configure(config)
	process := plugin.NewClient(config)
	t.Cleanup(func() {
		_ = hold.Close()
		process.Kill()
		_ = os.RemoveAll(sockets)
	})
	c, err := client.Connect(process, sockets)
	_ = lifeline.Close()
	if err != nil {
		t.Fatalf("start %s: %v", o.Executable, err)
	}
	p := &peer{
		Client:   c,
		loseHost: func() { _ = hold.Close() },
		gone:     watch(t, cmd.Process.Pid),
		pid:      cmd.Process.Pid,
	}
	// Every process is left to end by itself, as it would when k3m dies.
	t.Cleanup(func() {
		_ = hold.Close()
		if t.Failed() { // no need to see more
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		if !within(hostLossGrace, p.gone) {
			t.Errorf("the process outlived its host by %s", hostLossGrace)
			_ = unix.Kill(p.pid, unix.SIGKILL)
			<-p.gone
		}
	})
	return p
}

// hostLossGrace is how long a plugin may outlive its host, five seconds by the contract,
// and a second for a busy machine.
const hostLossGrace = 6 * time.Second

// watch closes the channel when the process has ended, whoever waits for it and whoever
// holds its output open.
func watch(t *testing.T, pid int) <-chan struct{} {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("watch process %d: %v", pid, err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer unix.Close(fd)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 || err != nil && err != unix.EINTR {
				return
			}
		}
	}()
	return gone
}

func within(d time.Duration, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

// testOutput is a test's log, line by line, until the test is over.
type testOutput struct {
	t    *testing.T
	mu   sync.Mutex
	line strings.Builder
	over bool
}

func newOutput(t *testing.T) *testOutput {
	o := &testOutput{t: t}
	t.Cleanup(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.over = true // a log after the end would panic
	})
	return o
}

// Write logs each full line.
func (o *testOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for part := range strings.Lines(string(b)) {
		o.line.WriteString(part)
		if strings.HasSuffix(part, "\n") && !o.over {
			o.t.Logf("plugin: %s", strings.TrimSuffix(o.line.String(), "\n"))
			o.line.Reset()
		}
	}
	return len(b), nil
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}
