package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The test executable is a plugin when it is started with this in its environment.
const actAsPlugin = "SDK_TEST_ACT_AS_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(actAsPlugin) != "" {
		sdk.Serve(actor{})
	}
	os.Exit(m.Run())
}

// actor does in Run what its configuration says.
type actor struct{}

func (actor) Info() sdk.Info {
	return sdk.Info{
		Kind: "addon", Name: "actor", Version: "0.1.0", Summary: "does what a test says.", Scope: sdk.NodeScope,
		ConfigSchema: []byte(`{"type": "object", "properties": {"do": {"type": "string"}, "file": {"type": "string"}}}`),
		Commands:     []sdk.Command{{Name: "say", Summary: "says its arguments"}},
	}
}

func (actor) Command(_ context.Context, _ string, args []string, paths sdk.CommandPaths) error {
	switch strings.Join(args, " ") {
	case "fail":
		return errors.New("the stage is closed")
	case "fail with 7":
		return fmt.Errorf("leave: %w", sdk.ExitCode(7))
	}
	fmt.Println(args, paths)
	return nil
}

func (actor) Run(ctx context.Context, host *sdk.Host) error {
	var config struct {
		Do   string `json:"do"`
		File string `json:"file"`
	}
	if err := host.DecodeConfig(&config); err != nil {
		return err
	}
	switch config.Do {
	case "print":
		fmt.Println("a line on standard output")
		fmt.Fprintln(os.Stderr, "a line on standard error")
		host.Logger().Info("a record", "key", "value")
		host.Logger().Debug("a record that nobody asked for")
		child := exec.CommandContext(ctx, "/bin/sh", "-c", "echo a line of a child; env; ls -l /proc/self/fd")
		child.Stdout = os.Stdout
		if err := child.Run(); err != nil {
			return err
		}
	case "panic":
		panicInRun()
	case "goexit":
		runtime.Goexit()
	case "hang":
		host.Ready()
		<-make(chan struct{})
	case "fail":
		return fmt.Errorf("open %s: \x1b[31mno such file", config.File)
	}
	host.Ready()
	<-ctx.Done()
	if config.File != "" { // what is left to do when the host is gone
		host.Logger().Error("the host's end of this pipe is closed")
		return os.WriteFile(config.File, []byte(context.Cause(ctx).Error()), 0o600)
	}
	return ctx.Err()
}

func panicInRun() { panic("the actor forgot the text") }

// stage is a running actor.
type stage struct {
	*client.Client
	process  *plugin.Client
	cmd      *exec.Cmd
	lifeline *os.File // the host's end
	stderr   *buffer
}

func start(t *testing.T) *stage {
	t.Helper()
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	s := &stage{cmd: exec.CommandContext(t.Context(), os.Args[0]), lifeline: ours, stderr: &buffer{}}
	s.cmd.Env = []string{actAsPlugin + "=1", "TMPDIR=" + t.TempDir(), client.EnvLifeline + "=3"}
	s.cmd.ExtraFiles = []*os.File{theirs}
	config := &plugin.ClientConfig{Cmd: s.cmd, Logger: hclog.NewNullLogger(), Stderr: s.stderr}
	client.Configure(config)
	s.process = plugin.NewClient(config)
	t.Cleanup(func() { _ = ours.Close(); s.process.Kill() })
	if s.Client, err = client.Connect(s.process, ""); err != nil {
		t.Fatal(err)
	}
	return s
}

// act runs the actor until ready or the end, and returns how to wait for that.
func (s *stage) act(t *testing.T, do, file string) (ready <-chan struct{}, ended <-chan error) {
	t.Helper()
	readyc, endedc := make(chan struct{}), make(chan error, 1)
	go func() {
		endedc <- s.Run(t.Context(), client.RunRequest{
			Config: fmt.Appendf(nil, `{"do": %q, "file": %q}`, do, file),
		}, func(r client.Report) {
			if r == (client.Ready{}) {
				close(readyc)
			}
		})
	}()
	return readyc, endedc
}

func TestAPersonIsToldWhatItIs(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{actAsPlugin + "=1"}
	output, err := cmd.CombinedOutput()
	want := fmt.Sprintf(`addon.actor 0.1.0 is a k3m plugin: does what a test says.
It is started by k3m, not by hand. To use it:

  k3m component install %s
  k3m server --enable addon=actor
`, os.Args[0])
	if string(output) != want || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v:\n%s\nwant exit code 1 and:\n%s", err, output, want)
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		name, command, args, stdout, stderr string
		code                                int
	}{
		{"arguments and paths", "say", "hello world", "[hello world] {/data /run /bin}\n", "", 0},
		{"an error is printed", "say", "fail", "", "k3m say: the stage is closed\n", 1},
		{"an exit code is silent", "say", "fail with 7", "", "", 7},
		{"a command that it does not have", "sing", "", "", "k3m sing: component addon.actor has no such sub-command\n", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], strings.Fields(c.args)...)
			cmd.Env = append(client.CommandEnv(c.command, sdk.CommandPaths{DataDir: "/data", RunDir: "/run", BinDir: "/bin"}), actAsPlugin+"=1")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run()
			if stdout.String() != c.stdout || stderr.String() != c.stderr || cmd.ProcessState.ExitCode() != c.code {
				t.Errorf("exit code %d, %q, %q; want %d, %q, %q",
					cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), c.code, c.stdout, c.stderr)
			}
		})
	}
}

func TestAllThatItPrintsReachesTheHostsLog(t *testing.T) {
	s := start(t)
	ready, ended := s.act(t, "print", "")
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	s.process.Kill() // which reads to the end
	said := s.stderr.String()
	for _, want := range []string{
		"a line on standard output\n", "a line on standard error\n", "a line of a child\n",
		`"@level":"info","@message":"a record"`, `"key":"value"`,
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the host did not get %q", want)
		}
	}
	for _, leak := range []string{"nobody asked", "PLUGIN_", "K3M_PLUGIN", client.EnvLifeline, " 3 -> pipe"} {
		if strings.Contains(said, leak) {
			t.Errorf("the host or the child got %q:\n%s", leak, said)
		}
	}
}

func TestRunEnds(t *testing.T) {
	t.Run("a panic ends the process and leaves its stack on standard error", func(t *testing.T) {
		s := start(t)
		_, ended := s.act(t, "panic", "")
		if err := <-ended; !errors.Is(err, client.ErrGone) {
			t.Errorf("run: %v, want ErrGone", err)
		}
		<-s.Exited()
		s.process.Kill()
		if code := s.cmd.ProcessState.ExitCode(); code != 2 {
			t.Errorf("exit code %d, want 2", code)
		}
		for _, want := range []string{"panic: the actor forgot the text", "panicInRun", "serve_test.go"} {
			if !strings.Contains(s.stderr.String(), want) {
				t.Errorf("standard error does not say %q:\n%s", want, s.stderr.String())
			}
		}
	})
	t.Run("an error is the component's own, fit to print", func(t *testing.T) {
		_, ended := start(t).act(t, "fail", "script")
		var failure *client.ComponentError
		if err := <-ended; !errors.As(err, &failure) || failure.Message != "open script: \uFFFD[31mno such file" {
			t.Errorf("run: %v", err)
		}
	})
	t.Run("leaving the goroutine is an error too", func(t *testing.T) {
		_, ended := start(t).act(t, "goexit", "")
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "without returning") {
			t.Errorf("run: %v", err)
		}
	})
}

func TestHostLoss(t *testing.T) {
	t.Run("Run may end what it began though the host's pipes are closed", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "cause")
		cmd, killHost := startByHand(t, `{"file": "`+file+`"}`)
		killHost()
		if err := cmd.Wait(); err != nil {
			t.Errorf("exit: %v, want code 0", err)
		}
		cause, err := os.ReadFile(file)
		if err != nil || string(cause) != sdk.ErrHostLost.Error() {
			t.Errorf("the last act of Run: %q, %v", cause, err)
		}
	})
	t.Run("a Run that does not end is left behind after five seconds", func(t *testing.T) {
		s := start(t)
		ready, _ := s.act(t, "hang", "")
		<-ready
		began := time.Now()
		_ = s.lifeline.Close()
		<-s.Exited()
		if d := time.Since(began); d < 4*time.Second || d > 7*time.Second {
			t.Errorf("it ended after %s", d)
		}
		s.process.Kill()
		if code := s.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(s.stderr.String(), "Run has not returned") {
			t.Errorf("exit code %d, %s", code, s.stderr.String())
		}
	})
}

// startByHand runs the actor without go-plugin's client, so that all that a host holds
// can be let go of at once, as the kernel does with a dead one.
func startByHand(t *testing.T, config string) (actor *exec.Cmd, killHost func()) {
	t.Helper()
	theirs, lifeline, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{
		actAsPlugin + "=1", "K3M_PLUGIN=component", "PLUGIN_PROTOCOL_VERSIONS=1",
		"TMPDIR=" + t.TempDir(), client.EnvLifeline + "=3",
	}
	cmd.ExtraFiles = []*os.File{theirs}
	stdout, _ := cmd.StdoutPipe()
	stderr, _ := cmd.StderrPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix:"+strings.Split(line, "|")[3], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.New(conn).Run(t.Context(), client.RunRequest{Config: []byte(config)}, func(client.Report) { close(ready) })
	}()
	<-ready
	return cmd, func() {
		_ = errors.Join(stdout.Close(), stderr.Close(), lifeline.Close(), conn.Close())
		<-ended
	}
}

func TestLifelineThatIsNone(t *testing.T) {
	for _, fd := range []string{"0", "99", "three"} {
		t.Run(fd, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = []string{actAsPlugin + "=1", "K3M_PLUGIN=component", client.EnvLifeline + "=" + fd}
			output, _ := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(output), client.EnvLifeline) {
				t.Errorf("exit code %d: %s", cmd.ProcessState.ExitCode(), output)
			}
		})
	}
}

func TestSIGTERM(t *testing.T) {
	s := start(t)
	ready, _ := s.act(t, "", "")
	<-ready
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.Exited()
	s.process.Kill()
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// buffer is safe for go-plugin's reader and the test at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
