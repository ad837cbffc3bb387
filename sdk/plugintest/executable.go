package plugintest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-plugin"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
)

// nobody is the user and group that a process without any rights has in these checks.
const nobody = 65534

func checkManners(t *testing.T, o Options) {
	t.Run("it tells a person what it is and how it is installed", func(t *testing.T) {
		i := info(t, asExecutable(o)(t))
		stdout, stderr, code := execute(t, o, nil)
		if code != 1 || stdout != "" {
			t.Errorf("exit code %d and %q on standard output, want 1 and nothing", code, stdout)
		}
		for _, words := range []string{i.ID(), "k3m component install"} {
			if !strings.Contains(stderr, words) {
				t.Errorf("standard error does not say %q:\n%s", words, stderr)
			}
		}
	})
	t.Run("it claims no protocol version that it does not speak", func(t *testing.T) {
		line := strings.Split(shakeHands(t, o, "99"), "|")
		if len(line) < 5 || line[1] == "99" || line[4] != "grpc" {
			t.Errorf("handshake %q to a host of protocol version 99", line)
		}
	})
	t.Run("it writes nothing but the handshake to standard output", func(t *testing.T) {
		if all := shakeHands(t, o, "1"); strings.Count(all, "\n") != 1 || !strings.HasPrefix(all, "1|1|unix|") {
			t.Errorf("standard output of its whole life is %.200q, want one line, 1|1|unix|…", all)
		}
	})
	t.Run("it says its info without privileges and without a network", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root can take privileges away")
		}
		// A place that the user can reach, unlike the test's own directory.
		public := o
		public.Executable = copyPublic(t, o.Executable)
		p := launch(t, public, func(cmd *exec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
				Cloneflags: syscall.CLONE_NEWNET,
			}
		})
		if differences := info(t, asExecutable(o)(t)).Differences(info(t, p)); len(differences) > 0 {
			t.Errorf("info is another than with privileges: %v", differences)
		}
	})
	t.Run("it refuses a sub-command that it does not have", func(t *testing.T) {
		stdout, stderr, code := execute(t, o, client.CommandEnv("no-such-command", sdk.CommandPaths{}))
		if code == 0 || stdout != "" || !strings.Contains(stderr, "no-such-command") {
			t.Errorf("exit code %d, standard output %q, standard error %q", code, stdout, stderr)
		}
	})
}

func checkEnd(t *testing.T, o Options) {
	t.Run("a broken run stream ends it", func(t *testing.T) {
		skipRun(t, o)
		p := asExecutable(o)(t)
		bounded, release := context.WithTimeout(t.Context(), o.ReadyTimeout)
		defer release()
		ctx, cancel := context.WithCancelCause(bounded)
		broken := errors.New("the test broke the stream")
		err := p.Run(ctx, request(t, o), func(r client.Report) {
			if _, ok := r.(client.Ready); ok {
				cancel(broken)
			}
		})
		if !errors.Is(err, broken) {
			t.Fatalf("run: %v", err)
		}
		if !within(hostLossGrace, p.gone) {
			t.Errorf("it goes on %s after the stream broke", hostLossGrace)
		}
	})
	t.Run("SIGTERM ends it", func(t *testing.T) {
		skipRun(t, o)
		p := asExecutable(o)(t)
		r := run(t, o, p)
		r.ready(t, info(t, p))
		if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if !within(hostLossGrace, p.gone) {
			t.Errorf("it goes on %s after SIGTERM", hostLossGrace)
		}
	})
	t.Run("SIGINT does not end it", func(t *testing.T) {
		p := asExecutable(o)(t)
		if err := syscall.Kill(p.pid, syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		info(t, p) // a call that is answered after the signal was delivered
	})
}

// execute runs the executable to its end, without the cookie.
func execute(t *testing.T, o Options, env []string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), o.ReadyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.Executable, o.Args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", append([]string{}, env...), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("it did not end within %s", o.ReadyTimeout)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// shakeHands starts the executable for a host of the given protocol version, loses the
// host after the first line, and returns all that came on standard output.
func shakeHands(t *testing.T, o Options, version string) string {
	t.Helper()
	lifeline, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer lifeline.Close()
	defer hold.Close()
	ctx, cancel := context.WithTimeout(t.Context(), o.ReadyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.Executable, o.Args...)
	config := &plugin.ClientConfig{}
	client.Configure(config)
	cmd.Dir = "/"
	cmd.Env = []string{
		config.MagicCookieKey + "=" + config.MagicCookieValue,
		"PLUGIN_PROTOCOL_VERSIONS=" + version,
		client.EnvLifeline + "=3",
		"TMPDIR=" + t.TempDir(),
	}
	cmd.ExtraFiles = []*os.File{lifeline}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	b := make([]byte, 4096)
	for !bytes.Contains(all.Bytes(), []byte("\n")) {
		n, err := stdout.Read(b)
		all.Write(b[:n])
		if err != nil {
			t.Errorf("no handshake: %v", err)
			break
		}
	}
	_ = hold.Close()
	started := time.Now()
	_, _ = io.Copy(&all, stdout)
	_ = cmd.Wait()
	if d := time.Since(started); d > hostLossGrace {
		t.Errorf("it outlived its host by %s", d)
	}
	return all.String()
}

func copyPublic(t *testing.T, executable string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "k3m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	from, err := os.Open(executable)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(dir, filepath.Base(executable))
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, copyErr := io.Copy(to, from)
	if err := errors.Join(copyErr, to.Close(), os.Chmod(path, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}
