package agent

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/core/supervisor/wire"
)

func quote(pem []byte) string { return `"` + strings.ReplaceAll(string(pem), "\n", `\n`) + `"` }

func TestComponentKubeconfig(t *testing.T) {
	s := newSupervisor(t)
	o := s.options(t)
	// Not below t.TempDir(), whose parents only root can pass.
	dir, err := os.MkdirTemp("", "k3m-agent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o.DataDir = dir
	a := newTestAgent(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()

	const uid = 54321
	path, err := a.ComponentKubeconfig(ctx, "dns.coredns", uid)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(config.CertFile, config.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if got := pair.Leaf.Subject.CommonName; got != "k3m:component:dns.coredns:n1" {
		t.Errorf("component is %s", got)
	}
	certFile, keyFile, err := a.ComponentServing(ctx, "dns.coredns", uid)
	if err != nil {
		t.Fatal(err)
	}
	serving, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := serving.Leaf.VerifyHostname("kube-dns.kube-system.svc"); err != nil || filepath.Dir(certFile) != filepath.Dir(path) {
		t.Errorf("serving certificate %s: %v", certFile, err)
	}
	for _, user := range []struct {
		name string
		id   uint32
		may  bool
	}{{"the component", uid, true}, {"another component", uid + 1, false}} {
		t.Run(user.name, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Skip("needs root to be somebody else")
			}
			for _, name := range []string{"kubeconfig", "client.key", "client.crt", "server-ca.crt", "serving.key", "serving.crt"} {
				cmd := exec.CommandContext(ctx, "cat", filepath.Join(filepath.Dir(path), name))
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user.id, Gid: user.id}}
				if err := cmd.Run(); (err == nil) != user.may {
					t.Errorf("read %s: %v", name, err)
				}
			}
			cmd := exec.CommandContext(ctx, "ls", filepath.Dir(filepath.Dir(path)))
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user.id, Gid: user.id}}
			if cmd.Run() == nil {
				t.Error("can list the components")
			}
		})
	}
	for _, id := range []string{"", "../x", "dns", "dns.core/dns", "DNS.coredns", "dns..coredns"} {
		if _, err := a.ComponentKubeconfig(ctx, id, uid); err == nil || !strings.Contains(err.Error(), "not a component's ID") {
			t.Errorf("ID %q: %v", id, err)
		}
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(soon):
		t.Error("Run did not return")
	}
}

func TestRunNamesThePartThatFails(t *testing.T) {
	s := newSupervisor(t)
	for name, c := range map[string]struct {
		change func(o *Options)
		want   string
	}{
		"join":    {func(o *Options) { o.Token = strings.Replace(o.Token, testSecret, "a-good-guess", 1) }, "join the cluster: server refused: the token is wrong"},
		"runtime": {func(o *Options) { o.Runtime = func(context.Context) (string, error) { return "", os.ErrNotExist } }, "container runtime: file does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			o := s.options(t)
			c.change(&o)
			if err := newTestAgent(t, o).Run(t.Context()); err == nil || err.Error() != c.want {
				t.Errorf("Run: %v; want %s", err, c.want)
			}
		})
	}
}

func TestCertificatesAreRenewed(t *testing.T) {
	s := newSupervisor(t)
	o := s.options(t)
	a := newTestAgent(t, o)
	id, err := a.join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left := id.kubelet.Leaf.NotAfter.Sub(renewAt(id.kubelet.Leaf)); left < 80*24*time.Hour || left > 100*24*time.Hour {
		t.Errorf("renewed %v before the end, want about 90 days", left)
	}
	joins := make(chan struct{}, 10)
	s.mu.Lock()
	s.intercept = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == wire.JoinPath {
			joins <- struct{}{}
		}
		return false
	}
	s.mu.Unlock()
	a.clock = func() time.Time { return time.Now().AddDate(0, 10, 0) }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	for range 2 { // the first one, and the renewal
		select {
		case <-joins:
		case err := <-done:
			t.Fatalf("Run: %v", err)
		case <-time.After(soon):
			t.Fatal("not renewed")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
