package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/k3m-io/k3m/test/harness"
)

// ownDropIn is where k3m component keeps what it is told.
func ownDropIn(h *harness.Host) string {
	return filepath.Join(h.ConfigFile+".d", "90-k3m-component.yaml")
}

// command runs k3m on the host and gives what it said, and its exit code.
func command(t *testing.T, h *harness.Host, args ...string) (string, int) {
	t.Helper()
	cmd := h.K3m(within(t, 2*time.Minute), args...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out, cmd.ProcessState.ExitCode()
}

// good runs k3m, sees that it succeeds and says the words.
func good(t *testing.T, h *harness.Host, args []string, words ...string) string {
	t.Helper()
	out, code := command(t, h, args...)
	if code != 0 {
		t.Fatalf("k3m %s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	says(t, out, words...)
	return out
}

// bad runs k3m, sees that it fails with the code and says the words.
func bad(t *testing.T, h *harness.Host, wantCode int, args []string, words ...string) {
	t.Helper()
	out, code := command(t, h, args...)
	if code != wantCode {
		t.Errorf("k3m %s: exit code %d, want %d: %s", strings.Join(args, " "), code, wantCode, out)
	}
	says(t, out, words...)
}

func says(t *testing.T, out string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("%q is not in: %s", w, out)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

// TestLiveControl changes the components of a running server.
func TestLiveControl(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "live")
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	preload(t, h)
	for _, exe := range []string{
		goBuild(t, "docs/examples/addon.whoami", "whoami"), badPlugin(t, "good", "dns.first"), badPlugin(t, "good", "dns.second"), badPlugin(t, "good", "ingress.mine"),
		badPlugin(t, "overdemand", "addon.overdemand"),
	} {
		if out, err := install(t, h, exe); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}

	t.Run("before the first start", func(t *testing.T) {
		bad(t, h, 1, []string{"status"}, "no server answers")
		bad(t, h, 1, []string{"component", "restart", "flannel"}, "no server answers")
		good(t, h, []string{"component", "enable", "--config", h.ConfigFile, "dns=first"}, "takes effect at the next start")
		bad(t, h, 2, []string{"component", "configure", "--config", h.ConfigFile, "flannel", "mtuu=1400"}, "mtuu", `"mtu"`)
		bad(t, h, 2, []string{"component", "configure", "--config", h.ConfigFile, "flannel", "mtu=big"}, ownDropIn(h)+":", "mtu", "big")
		bad(t, h, 2, []string{"component", "disable", "--config", h.ConfigFile, "runtime"}, "a node needs a runtime")
		if st, err := os.Stat(ownDropIn(h)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the drop-in: %v, %v", st, err)
		}
	})
	if t.Failed() {
		return
	}

	node := h.Serve(t, "--kubelet-arg=max-pods=42")
	client, err := node.WaitReady(within(t, 60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	waitComponent(t, within(t, 30*time.Second), node, "dns.first", harness.Component.Ready)
	s := &scene{T: t, node: node, client: client, ns: "default"}
	s.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: echo}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: echo, image: ECHO}]}\n")
	pod := s.pod("echo")
	pid := node.Pid()
	runtime := node.Component(t, within(t, 10*time.Second), "runtime.containerd")
	untouched := func(t *testing.T) {
		t.Helper()
		if !node.Running() || node.Pid() != pid {
			t.Fatal("the server was restarted")
		}
		if c := node.Component(t, within(t, 10*time.Second), "runtime.containerd"); c.Pid != runtime.Pid {
			t.Errorf("the runtime is %+v, was %+v", c, runtime)
		}
	}

	t.Run("a swap", func(t *testing.T) {
		good(t, h, []string{"component", "enable", "--yes", "dns=second"}, "stopped dns.first", "started dns.second, ready after", ownDropIn(h))
		all, err := node.Components(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := all["dns.first"]; ok || !all["dns.second"].Ready() {
			t.Errorf("components are %v", all)
		}
		untouched(t)
		good(t, h, []string{"component", "enable", "dns=second"}, "nothing to change")
	})
	t.Run("objects depend on it", func(t *testing.T) {
		before := read(t, ownDropIn(h))
		bad(t, h, 1, []string{"component", "disable", "dns"}, "pod default/echo", "--yes")
		if after := read(t, ownDropIn(h)); after != before {
			t.Errorf("the drop-in was changed to %s", after)
		}
		good(t, h, []string{"component", "disable", "--yes", "dns"}, "stopped dns.second")
		untouched(t)
	})
	t.Run("an add-on", func(t *testing.T) {
		good(t, h, []string{"component", "enable", "whoami"}, "started addon.whoami, ready after")
		url := "http://10.42.0.1:8099/"
		if body := s.get(h.HTTP(), url); !strings.Contains(body, "addon.whoami") {
			t.Errorf("the node hears %q", body)
		}
		good(t, h, []string{"component", "configure", "whoami", "port=8124"}, "restarted addon.whoami, ready after")
		if body := s.get(h.HTTP(), "http://10.42.0.1:8124/"); !strings.Contains(body, "addon.whoami") {
			t.Errorf("the node hears %q", body)
		}
		bad(t, h, 2, []string{"component", "configure", "whoami", "prot=1"}, "prot", `did you mean "port"`)
		bad(t, h, 2, []string{"component", "configure", "whoami", "port=no"}, ownDropIn(h)+":", "addon.whoami.port")
		good(t, h, []string{"component", "configure", "whoami", "--unset", "port"}, "restarted addon.whoami, ready after")
		if text := read(t, ownDropIn(h)); strings.Contains(text, "whoami:") || !strings.Contains(text, "addon=whoami") {
			t.Errorf("the drop-in is %s", text)
		}
		good(t, h, []string{"component", "disable", "addon.whoami"}, "stopped addon.whoami")
		untouched(t)
	})
	t.Run("one with an identity, that does not become ready", func(t *testing.T) {
		identity := filepath.Join(h.DataDir, "agent", "components", "addon.overdemand")
		bad(t, h, 1, []string{"component", "enable", "--timeout=5s", "overdemand"}, "5s passed", "addon.overdemand is not ready", "overdemand: refused")
		if _, err := os.Stat(identity); err != nil {
			t.Error(err)
		}
		good(t, h, []string{"component", "disable", "overdemand"}, "stopped addon.overdemand")
		if _, err := os.Stat(identity); err == nil {
			t.Error("its identity is still there")
		}
		untouched(t)
	})
	t.Run("what needs a restart of the node", func(t *testing.T) {
		before := read(t, ownDropIn(h))
		bad(t, h, 1, []string{"component", "enable", "cni=none"}, "cni", "systemctl stop k3m", "pods keep running")
		if after := read(t, ownDropIn(h)); after != before {
			t.Errorf("the drop-in was changed to %s", after)
		}
		untouched(t)
	})
	t.Run("the network's configuration", func(t *testing.T) {
		flannel := node.Component(t, within(t, 10*time.Second), "cni.flannel")
		good(t, h, []string{"component", "configure", "flannel", "backend=host-gw"}, "restarted cni.flannel, ready after")
		if c := node.Component(t, within(t, 10*time.Second), "cni.flannel"); c.Pid == flannel.Pid {
			t.Errorf("it was not restarted: %+v", c)
		}
		s.get(h.HTTP(), "http://"+pod.Status.PodIP+":8080")
		good(t, h, []string{"component", "configure", "flannel", "--unset", "backend"}, "restarted cni.flannel")
		untouched(t)
	})
	t.Run("restart", func(t *testing.T) {
		before := node.Component(t, within(t, 10*time.Second), "cni.flannel")
		good(t, h, []string{"component", "restart", "flannel"}, "cni.flannel is ready again after")
		if c := node.Component(t, within(t, 10*time.Second), "cni.flannel"); c.Pid == before.Pid || !c.Ready() {
			t.Errorf("after the restart: %+v", c)
		}
		bad(t, h, 2, []string{"component", "restart", "flanel"}, `did you mean "flannel"`)
	})
	t.Run("a signal after an edit", func(t *testing.T) {
		if err := os.WriteFile(h.ConfigFile, []byte("enable: [ingress=mine]\nkubelet-arg: [max-pods=50]\nprofiling: true\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		hangUp(t, node)
		waitComponent(t, within(t, 30*time.Second), node, "ingress.mine", harness.Component.Ready)
		// The flag is stronger, so the kubelet's arguments have not changed.
		logged(t, node, "profiling", "started again")
		if out, code := command(t, h, "status"); code != 0 || !strings.Contains(out, "after the next start: profiling") {
			t.Errorf("exit code %d: %s", code, out)
		}
		if err := os.WriteFile(h.ConfigFile, []byte("enable: [ingress=mine]\nenabel: [x]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		hangUp(t, node)
		logged(t, node, "not reloaded", h.ConfigFile+":2:1")
		bad(t, h, 1, []string{"status"}, h.ConfigFile+":2:1", "the next start would fail", "SIGHUP")
		if c := node.Component(t, within(t, 10*time.Second), "ingress.mine"); !c.Ready() || c.Restarts != 0 {
			t.Errorf("after a bad file: %+v", c)
		}
		bad(t, h, 2, []string{"component", "enable", "whoami"}, h.ConfigFile+":2:1", "enabel")
		if err := os.WriteFile(h.ConfigFile, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		hangUp(t, node)
		if err := waitGone(t, node, "ingress.mine"); err != nil {
			t.Error(err)
		}
		untouched(t)
	})
	t.Run("the server keeps it over a restart", func(t *testing.T) {
		good(t, h, []string{"component", "enable", "dns=first"}, "started dns.first")
		node.Stop(t)
		node.Restart(t)
		if _, err := node.WaitReady(within(t, 60*time.Second)); err != nil {
			t.Fatal(err)
		}
		waitComponent(t, within(t, 30*time.Second), node, "dns.first", harness.Component.Ready)
	})
}

// TestStrongerSource has a server whose flags decide.
func TestStrongerSource(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "stronger")
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	if out, err := install(t, h, badPlugin(t, "good", "ingress.mine")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	node := h.Serve(t, "--disable=dns")
	if _, err := node.WaitReady(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
	bad(t, h, 1, []string{"component", "enable", "ingress=mine"}, "--disable", "stronger than any file", h.ConfigFile)
	// The files say so already, and yet it is not so.
	bad(t, h, 1, []string{"component", "enable", "dns"}, "--disable", "stronger than any file", h.ConfigFile)
	if _, err := os.Stat(ownDropIn(h)); err == nil {
		t.Error("the drop-in was written")
	}
}

func hangUp(t *testing.T, node *harness.Node) {
	t.Helper()
	if err := syscall.Kill(node.Pid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// logged waits until one line of the node's log has all the words.
func logged(t *testing.T, node *harness.Node, words ...string) {
	t.Helper()
	ctx := within(t, 20*time.Second)
	for {
		for line := range strings.Lines(node.Logs()) {
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				return
			}
		}
		select {
		case <-time.After(50 * time.Millisecond): // the log is a file
		case <-ctx.Done():
			t.Errorf("no line of the log has %q", words)
			return
		}
	}
}

// waitGone waits until the node has no component of the ID.
func waitGone(t *testing.T, node *harness.Node, id string) error {
	t.Helper()
	out := node.Host.K3m(within(t, 30*time.Second), "status", "--watch", "-o", "json")
	pipe, err := out.StdoutPipe()
	if err != nil {
		return err
	}
	if err := out.Start(); err != nil {
		return err
	}
	defer func() { _ = out.Process.Signal(syscall.SIGTERM); _ = out.Wait() }()
	decoder := json.NewDecoder(bufio.NewReader(pipe))
	for {
		var report struct {
			Components []harness.Component `json:"components"`
		}
		if err := decoder.Decode(&report); err != nil {
			return fmt.Errorf("wait until %s is gone: %w", id, err)
		}
		if !slices.ContainsFunc(report.Components, func(c harness.Component) bool { return c.ID == id }) {
			return nil
		}
	}
}
