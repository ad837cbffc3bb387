package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/test/harness"
)

// tests are the full names of all tests.
func (s *suite) tests(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, s.bin("e2e.test"), s.driver(), "--list-tests").Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests: %w", err)
	}
	var names []string
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	for lines.Scan() {
		if _, name, ok := strings.Cut(lines.Text(), ".go:"); ok { // file.go:line: name
			_, name, _ = strings.Cut(name, ": ")
			names = append(names, name)
		}
	}
	return names, lines.Err()
}

// driver makes upstream's storage tests define themselves for the StorageClass local-path.
func (s *suite) driver() string {
	return "--storage.testdriver=" + filepath.Join(s.source, "local-path.yaml")
}

// run boots a cluster of one node, runs the tests in it and takes it down. It gives how the tests went, unless they
// could not be run. The error is for all that is not the tests' own: a node that does not stop as it should counts,
// too.
func (s *suite) run(ctx context.Context, o options, skip []string) (tests []test, err error) {
	junit := filepath.Join(s.out, "junit.xml")
	if err := os.Remove(junit); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	lab, err := harness.Open()
	if err != nil {
		return nil, err
	}
	tb := &harness.Bench{}
	defer func() {
		if abort, ok := recover().(harness.Abort); ok {
			err = errors.New(abort.Reason)
		}
		tb.Close()
		if closed := lab.Close(); err == nil {
			err = closed
		}
		if err == nil && tb.Failed() {
			err = errors.New("the node did not stop or leave its host as it should; see above")
		}
	}()
	host := lab.NewHost(tb, "n1")
	if err := preload(s.imagesDir(), filepath.Join(host.DataDir, "agent", "images")); err != nil {
		return nil, err
	}
	node := host.Serve(tb, strings.Fields(o.server)...)
	defer func() {
		if err := os.WriteFile(filepath.Join(s.out, "k3m.log"), []byte(node.Logs()), 0o644); err != nil {
			tb.Logf("keep the node's log: %v", err)
		}
	}()
	boot, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("not within three minutes"))
	defer cancel()
	client, err := node.WaitReady(boot)
	if err != nil {
		return nil, err
	}
	// Some tests want a worker, and call none so that has the label.
	worker := []byte(`{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":null}}}`)
	if _, err := client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, worker, metav1.PatchOptions{}); err != nil {
		return nil, err
	}
	outside := lab.NewHost(tb, "outside")
	if err := copyKubeconfig(host, outside); err != nil {
		return nil, err
	}
	if err := s.ginkgo(ctx, host, outside, o, skip, junit); err != nil {
		return nil, err
	}
	return readJUnit(junit)
}

// copyKubeconfig gives a host that is no node the administrator's kubeconfig, with the node's address in it.
func copyKubeconfig(node, outside *harness.Host) error {
	cfg, err := clientcmd.LoadFromFile(node.Kubeconfig)
	if err != nil {
		return err
	}
	for _, cluster := range cfg.Clusters {
		server, err := url.Parse(cluster.Server)
		if err != nil {
			return err
		}
		server.Host = net.JoinHostPort(node.Addr.String(), server.Port())
		cluster.Server = server.String()
	}
	return clientcmd.WriteToFile(*cfg, outside.Kubeconfig)
}

// ginkgo runs the tests in a host beside the node, for they ask from outside what a client outside would: on the
// node itself a Service without endpoints looks otherwise.
func (s *suite) ginkgo(ctx context.Context, node, host *harness.Host, o options, skip []string, junit string) error {
	if err := host.LinkBundle(); err != nil {
		return err
	}
	kubectl := filepath.Join(host.Dir, "kubectl")
	dist, err := harness.Dist()
	if err != nil {
		return err
	}
	if err := os.WriteFile(kubectl, []byte("#!/bin/sh\nexec "+dist+" kubectl \"$@\"\n"), 0o755); err != nil {
		return err
	}
	args := []string{
		"run", "--procs=" + strconv.Itoa(o.procs), "--timeout=" + o.timeout.String(), "--keep-going", "--no-color", "--silence-skips",
		"--output-dir=" + filepath.Dir(junit), "--junit-report=" + filepath.Base(junit), "--focus=" + o.focus,
	}
	for _, pattern := range skip {
		args = append(args, "--skip="+pattern)
	}
	args = append(args, s.bin("e2e.test"), "--",
		"--provider=skeleton", "--kubeconfig="+host.Kubeconfig, "--kubectl-path="+kubectl,
		"--kubelet-root-dir="+filepath.Join(node.DataDir, "agent", "kubelet"), "--disable-log-dump",
		"--e2e-output-dir="+s.out, s.driver())
	logfile, err := os.Create(filepath.Join(s.out, "ginkgo.log"))
	if err != nil {
		return err
	}
	defer logfile.Close()
	cmd := host.K3m(ctx)
	ginkgo := host.Command(ctx, s.bin("ginkgo"), args...)
	ginkgo.Env = append(cmd.Env, "TMPDIR="+host.Dir) // with the host's paths, for kubectl
	ginkgo.Stdout, ginkgo.Stderr = logfile, logfile
	fmt.Fprintf(os.Stderr, "conformance: running the tests; what they say is in %s\n", logfile.Name())
	err = ginkgo.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		// It has run: failed tests are in the report, and a report that is not there is told of when it is read.
		return nil
	}
	return err
}

// preload copies the archives to where the node finds them.
func preload(from, to string) error {
	archives, err := filepath.Glob(filepath.Join(from, "*.tar"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, path := range archives {
		if err := copyFile(path, filepath.Join(to, filepath.Base(path))); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
