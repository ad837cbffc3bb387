package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/test/harness"
)

// refuse starts k3m server in a host with wrong arguments, and gives what it said.
func refuse(t *testing.T, h *harness.Host, wantCode int, args ...string) string {
	t.Helper()
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	cmd := h.K3m(within(t, 20*time.Second), append(append([]string{"server"}, h.Flags()...), args...)...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("it started: %s", out)
	}
	if code := cmd.ProcessState.ExitCode(); code != wantCode {
		t.Errorf("exit code %d, want %d: %s", code, wantCode, out)
	}
	return out
}

// sentence sees that a refusal is one line that says the wanted words, without a stack.
func sentence(t *testing.T, said string, words ...string) {
	t.Helper()
	if n := strings.Count(strings.TrimSpace(said), "\n"); n > 0 {
		t.Errorf("%d lines were said, want one: %s", n+1, said)
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("%q is not in: %s", w, said)
		}
	}
}

// TestWrongSelection has choices that are refused before the host is touched.
func TestWrongSelection(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "wrong")
	for _, c := range []struct {
		name  string
		args  []string
		words []string
	}{
		{"unknown kind", []string{"--enable=runtme=containerd"}, []string{"--enable", "runtme", "runtime"}},
		{"unknown name of a kind", []string{"--enable=runtime=containerdd"}, []string{"--enable", "containerdd", `containerd`}},
		{"unknown name", []string{"--enable=flanel"}, []string{"--enable", "flanel", "flannel"}},
		{"unknown in a list", []string{"--disable=dns,flanell"}, []string{"--disable", "flanell", "flannel"}},
		{"enable and disable of the same", []string{"--enable=cni=flannel", "--disable=flannel"}, []string{"--enable", "--disable", "flannel"}},
		{"no runtime", []string{"--disable=runtime"}, []string{"--disable", "runtime"}},
		{"backend of a component that is not chosen", []string{"--enable=cni=none", "--flannel-backend=vxlan"}, []string{"--flannel-backend", "cni.flannel"}},
		{"unknown backend", []string{"--flannel-backend=vxlam"}, []string{"--flannel-backend", "vxlam", "vxlan"}},
		{"unknown flag", []string{"--enabel=cni=flannel"}, []string{"--enabel", "--enable"}},
		{"bad node name", []string{"--node-name=Not A Name"}, []string{"--node-name", "Not A Name"}},
		{"bad address", []string{"--node-ip=198.18.0"}, []string{"--node-ip", "198.18.0"}},
		{"address of another machine", []string{"--bind-address=198.18.0.250"}, []string{"--bind-address", "198.18.0.250", "ip address"}},
		{"contradictory feature gates", []string{"--kube-apiserver-arg=feature-gates=CrossNamespaceVolumeDataSource=true", "--kubelet-arg=feature-gates=CrossNamespaceVolumeDataSource=false"},
			[]string{"CrossNamespaceVolumeDataSource", "kube-apiserver", "kubelet"}},
		{"unknown argument of a Kubernetes part", []string{"--kube-scheduler-arg=leader-elekt=true"}, []string{"leader-elekt"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sentence(t, refuse(t, h, 2, c.args...), c.words...)
			untouched(t, h)
		})
	}
	t.Run("in the file", func(t *testing.T) {
		text := "enable:\n- cni=flannel\n- runtime=containred\n"
		if err := os.WriteFile(h.ConfigFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sentence(t, refuse(t, h, 2), h.ConfigFile+":3", "containred", "containerd")
		untouched(t, h)
	})
	t.Run("in a component's block, its own line", func(t *testing.T) {
		for _, c := range []struct {
			name, block string
			words       []string
		}{
			{"unknown key", "    backend: vxlan\n    mtuu: 1400\n", []string{":4:5", "cni.flannel.mtuu", "mtu"}},
			{"wrong type", "    mtu: wide\n", []string{":3:5", "cni.flannel.mtu", "integer", `"wide"`}},
			{"out of range", "    backend: vxlan\n    mtu: 12\n", []string{":4:5", "cni.flannel.mtu", "12", "at least"}},
		} {
			if err := os.WriteFile(h.ConfigFile, []byte("components:\n  cni.flannel:\n"+c.block), 0o600); err != nil {
				t.Fatal(err)
			}
			c.words[0] = h.ConfigFile + c.words[0]
			sentence(t, refuse(t, h, 2), c.words...)
			untouched(t, h)
		}
	})
	t.Run("printed", func(t *testing.T) {
		if err := os.WriteFile(h.ConfigFile, []byte("tls-san: [k3m.example.test]\ncomponents:\n  cni.flannel: {mtu: 1400}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := h.K3m(within(t, 20*time.Second), append([]string{"server", "--print-config", "--token=very-secret-token"}, h.Flags()...)...)
		cmd.Env = append(cmd.Env, "K3M_DISABLE=metrics-server")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"- k3m.example.test +# " + regexp.QuoteMeta(h.ConfigFile) + ":1:11\n", `"mtu": 1400 +# ` + regexp.QuoteMeta(h.ConfigFile) + ":3:17\n",
			"- metrics-server +# K3M_DISABLE\n", "node-name: wrong +# --node-name\n", "- 10.43.0.0/16 +# default\n", "# Components that it selects: runtime.containerd,",
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("%s is not in\n%s", want, out)
			}
		}
		if strings.Contains(out, "very-secret-token") || strings.Contains(out, "metrics-server.") {
			t.Errorf("it shows what it must not:\n%s", out)
		}
		untouched(t, h)
	})
	t.Run("unknown key in the file", func(t *testing.T) {
		if err := os.WriteFile(h.ConfigFile, []byte("node-nam: x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		sentence(t, refuse(t, h, 2), h.ConfigFile+":1", "node-nam", "node-name")
		untouched(t, h)
	})
}

// untouched sees that nothing was made on the host: the data directory holds what was
// unpacked and no more, and there is no run directory.
func untouched(t *testing.T, h *harness.Host) {
	t.Helper()
	changes, err := h.Changes()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range changes {
		if path != "file: "+h.DataDir {
			t.Errorf("the host was touched: %s", path)
		}
	}
	entries, err := os.ReadDir(h.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "data" {
			t.Errorf("the data directory was touched: %s", e.Name())
		}
	}
}

func TestNotRoot(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "notroot")
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "--", lab.Dist, "server"}, h.Flags()...)
	cmd := h.Command(within(t, 20*time.Second), setpriv, args...)
	cmd.Env = append(cmd.Env, "HOME="+h.Dir)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("it started")
	}
	sentence(t, out, "root")
	untouched(t, h)
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "portinuse")
	for _, port := range []string{"6443", "10250"} {
		t.Run(port, func(t *testing.T) {
			ln, err := h.Listen("tcp", net.JoinHostPort("0.0.0.0", port))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			said := refuse(t, h, 1)
			sentence(t, said, port, "in use")
			untouched(t, h)
		})
	}
}

func TestSecondServerOnTheSameDataDirectory(t *testing.T) {
	s := play(t)
	flags := slices.DeleteFunc(s.node.Host.Flags(), func(f string) bool { return strings.HasPrefix(f, "--run-dir=") })
	other := filepath.Join(s.node.Host.Dir, "run2")
	cmd := s.node.Host.K3m(within(t, 20*time.Second), append([]string{"server", "--run-dir=" + other}, flags...)...)
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() < 1 {
		t.Fatalf("it ended with %v: %s", err, out)
	}
	sentence(t, out, s.node.Host.DataDir)
	if _, err := os.Stat(other); err == nil {
		t.Error("it made its run directory")
	}
	// The first one is none the worse.
	if _, err := s.node.WaitReady(within(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
	if _, err := s.node.Components(within(t, 10*time.Second)); err != nil {
		t.Errorf("the first server's socket: %v", err)
	}
}
