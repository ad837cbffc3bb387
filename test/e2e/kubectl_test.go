package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const kubectlPods = `
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: shell, image: BUSYBOX, command: [sleep, "3600"]}
---
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: echo, image: ECHO, stdin: true}
`

// TestKubectlStreams has the commands that go through the kubelet's streaming server.
func TestKubectlStreams(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(kubectlPods)
	s.pod("shell")
	s.pod("echo")

	t.Run("exec", func(t *testing.T) {
		if out := s.kubectl("exec", "shell", "--", "hostname"); out != "shell\n" {
			t.Errorf("got %q", out)
		}
	})
	t.Run("exec gives the exit code", func(t *testing.T) {
		_, err := s.node.Kubectl(within(t, 30*time.Second), "-n", s.ns, "exec", "shell", "--", "sh", "-c", "exit 7")
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("got %v", err)
		}
	})
	t.Run("exec with a terminal", func(t *testing.T) { s.terminal(t) })
	t.Run("logs -f", func(t *testing.T) {
		line := s.lines(t, nil, "logs", "-f", "echo")
		line("listening on :8080")
		marker := fmt.Sprintf("/env?name=MARK%d", time.Now().UnixNano())
		s.get(s.node.Host.HTTP(), "http://"+s.pod("echo").Status.PodIP+":8080"+marker)
		line("GET " + marker)
	})
	t.Run("attach", func(t *testing.T) {
		in, typing := io.Pipe()
		defer func() { _ = typing.Close() }()
		line := s.lines(t, in, "attach", "-i", "echo")
		// kubectl attaches some moments after it was started; what is typed is kept.
		go fmt.Fprintln(typing, "hello from outside")
		line("input: hello from outside")
	})
	t.Run("port-forward", func(t *testing.T) {
		line := s.lines(t, nil, "port-forward", "pod/echo", ":8080")
		text := line("Forwarding from 127.0.0.1:")
		addr, _, _ := strings.Cut(strings.TrimPrefix(text, "Forwarding from "), " ")
		for range 3 {
			if body := s.get(s.node.Host.HTTP(), "http://"+addr); body != "echo" {
				t.Errorf("got %q", body)
			}
		}
	})
	t.Run("cp there and back", func(t *testing.T) {
		dir := s.node.Host.Dir
		there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
		want := bytes.Repeat([]byte("k3m copies\n"), 100_000)
		if err := os.WriteFile(there, want, 0o644); err != nil {
			t.Fatal(err)
		}
		s.kubectl("cp", there, "shell:/tmp/file")
		if out := s.kubectl("exec", "shell", "--", "wc", "-c", "/tmp/file"); !strings.HasPrefix(out, fmt.Sprint(len(want))) {
			t.Errorf("in the pod: %q", out)
		}
		s.kubectl("cp", "shell:/tmp/file", back)
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
	})
	t.Run("top-level listing", func(t *testing.T) {
		if out := s.kubectl("get", "pods", "-o", "name"); out != "pod/echo\npod/shell\n" {
			t.Errorf("got %q", out)
		}
	})
}

// terminal has a conversation with a shell on a terminal of 33 by 101.
func (s *scene) terminal(t *testing.T) {
	cmd := s.node.Host.K3m(within(t, 30*time.Second), "kubectl", "--kubeconfig", s.node.Host.Kubeconfig, "-n", s.ns,
		"exec", "-it", "shell", "--", "sh")
	tty, err := cmd.Terminal(33, 101)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 100)
	go func() {
		defer close(said)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			if err != nil { // EIO: nobody is on the other side any more
				return
			}
			said <- string(buf[:n])
		}
	}()
	var heard strings.Builder
	expect := func(what string) {
		t.Helper()
		for !strings.Contains(heard.String(), what) {
			text, ok := <-said
			if !ok {
				t.Fatalf("%q was not said, but %q", what, heard.String())
			}
			heard.WriteString(text)
		}
		heard.Reset()
	}
	type_ := func(text string) {
		if _, err := io.WriteString(tty, text+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	expect("# ")
	type_("tty")
	expect("/dev/pts/")
	type_("stty size")
	expect("33 101")
	type_("exit 7")
	for range said {
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("kubectl exec ended with %v", err)
	}
}

// lines starts a kubectl that goes on until the test ends, and gives a function that
// waits for a line that contains a text and returns it.
func (s *scene) lines(t *testing.T, stdin io.Reader, args ...string) func(string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	cmd := s.node.Host.K3m(ctx, append([]string{"kubectl", "--kubeconfig", s.node.Host.Kubeconfig, "-n", s.ns}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var in io.WriteCloser
	if stdin != nil {
		if in, err = cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if stdin != nil {
		go func() {
			_, _ = io.Copy(in, stdin) // until either side has had enough
			in.Close()
		}()
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was told to end
	})
	sc := bufio.NewScanner(out)
	return func(text string) string {
		t.Helper()
		var heard []string
		for sc.Scan() {
			if strings.Contains(sc.Text(), text) {
				return sc.Text()
			}
			heard = append(heard, sc.Text())
		}
		t.Fatalf("kubectl %s: %q did not come, but %q, %s", strings.Join(args, " "), text, heard, errs.String())
		return ""
	}
}
