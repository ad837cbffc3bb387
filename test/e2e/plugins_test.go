package e2e

import (
	"encoding/json"
	"fmt"
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

// TestBadPluginsAreNotInstalled offers plugins that don't get through the inspection.
func TestBadPluginsAreNotInstalled(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "install")
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, mode, id string
		words          []string
	}{
		{"exits at once", "exit-at-once", "", []string{"badplugin: leaving at once"}},
		{"hangs at start", "hang-at-start", "", nil},
		{"prints rubbish on stdout", "rubbish-on-stdout", "", nil},
		{"prints without end", "endless-on-stdout", "", nil},
		{"speaks a later protocol", "other-protocol-version", "", []string{"99", "1"}},
		{"speaks net/rpc", "net-rpc", "", nil},
		{"sends the host elsewhere", "socket-elsewhere", "", nil},
		{"says too much", "huge-info", "", nil},
		{"says what clears the screen", "malformed-info", "", nil},
		{"takes the name of a built-in one", "good", "cni.flannel", []string{"cni.flannel"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := c.id
			if id == "" {
				id = "addon." + c.mode
			}
			exe := badPlugin(t, c.mode, id)
			start := time.Now()
			out, err := install(t, h, exe)
			if err == nil {
				t.Fatalf("it was installed: %s", out)
			}
			sentence(t, out, append(c.words, "k3m: ")...)
			if strings.ContainsRune(out, '\x1b') {
				t.Errorf("what the plugin said reached the terminal raw: %q", out)
			}
			if took := time.Since(start); took > 40*time.Second {
				t.Errorf("it took %s to refuse it", took)
			}
			if _, err := os.Stat(filepath.Join(h.DataDir, "plugins", id)); err == nil {
				t.Error("its file was left in the plugin directory")
			}
		})
	}
	for _, left := range h.Leftovers() {
		if left != "file: "+h.DataDir && !strings.HasPrefix(left, "cgroup: ") {
			t.Errorf("left over: %s", left)
		}
	}
}

// wanted is what becomes of an installed plugin in a cluster.
type wanted struct {
	mode   string
	states []string
	// words are in the component's reason or last error.
	words []string
}

var installed = []wanted{
	{"good", []string{"Refused"}, []string{"addon.good"}}, // its file is changed after the installation
	{"other-info", []string{"Refused"}, []string{"CAP_SYS_ADMIN"}},
	{"overdemand", []string{"Degraded", "Starting"}, []string{"overdemand: refused:", "list all secrets (403 Forbidden)", "mount a tmpfs", "become root", "open a raw socket"}},
	{"panic-in-run", []string{"Backoff", "CrashLoop", "Starting", "Launching", "Exited"}, []string{"badplugin: panic in Run"}},
	{"crash-after-ready", []string{"Backoff", "CrashLoop", "Starting", "Launching", "Exited", "Ready"}, []string{"badplugin: panic after Ready"}},
	{"fail-in-run", []string{"Backoff", "CrashLoop", "Starting", "Launching", "Exited"}, []string{"the disk of the test is full"}},
	{"eat-memory", []string{"Backoff", "CrashLoop", "Starting", "Launching", "Exited", "Ready"}, []string{"memory"}},
	{"false-report", nil, nil},
	{"leave-children", []string{"Ready"}, nil},
	{"ignore-stop", []string{"Ready"}, nil},
}

// TestPluginsInACluster runs the example plugin beside plugins that misbehave at work.
func TestPluginsInACluster(t *testing.T) {
	h := lab.NewHost(t, "plugins")
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	preload(t, h)
	whoami := goBuild(t, "docs/examples/addon.whoami", "whoami")
	onlySDK(t, whoami)
	args := []string{"--enable=addon=whoami"}
	if out, err := install(t, h, whoami); err != nil || !strings.Contains(out, "addon.whoami") {
		t.Fatalf("install whoami: %v: %s", err, out)
	}
	for _, w := range installed {
		if out, err := install(t, h, badPlugin(t, w.mode, "addon."+w.mode)); err != nil {
			t.Fatalf("install %s: %v: %s", w.mode, err, out)
		}
		args = append(args, "--enable=addon."+w.mode)
	}
	change(t, filepath.Join(h.DataDir, "plugins"), "addon.good")
	if err := os.WriteFile(h.ConfigFile, []byte("components:\n  addon.whoami:\n    port: 8123\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	node := h.Serve(t, args...)
	client, err := node.WaitReady(within(t, 60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, node: node, client: client, ns: "default"}
	s.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: echo}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: echo, image: ECHO}]}\n")
	pod := s.pod("echo")

	t.Run("whoami answers", func(t *testing.T) {
		waitComponent(t, within(t, 30*time.Second), node, "addon.whoami", harness.Component.Ready)
		url := "http://10.42.0.1:8123/"
		want := fmt.Sprintf("component addon.whoami on node %s of cluster cluster.local\n", node.Name)
		if body := s.get(h.HTTP(), url); body != want {
			t.Errorf("the node hears %q", body)
		}
		if body := s.get(h.HTTP(), "http://"+pod.Status.PodIP+":8080/fetch?url="+url); body != want {
			t.Errorf("a pod hears %q", body)
		}
	})
	for _, w := range installed {
		t.Run(w.mode, func(t *testing.T) {
			c := waitComponent(t, within(t, 60*time.Second), node, "addon."+w.mode, func(c harness.Component) bool {
				said := c.Reason + " " + c.LastErr
				return (w.states == nil || slices.Contains(w.states, c.State)) &&
					!slices.ContainsFunc(w.words, func(word string) bool { return !strings.Contains(said, word) })
			})
			t.Logf("%s: reason %q, last error %q", c.State, c.Reason, c.LastErr)
			if strings.Contains(c.Reason+c.LastErr, "allowed:") {
				t.Error("it was let do what it did not ask for")
			}
		})
	}
	t.Run("the cluster goes on", func(t *testing.T) {
		for _, id := range []string{"runtime.containerd", "cni.flannel"} {
			if c := node.Component(t, within(t, 10*time.Second), id); !c.Ready() || c.Restarts != 0 {
				t.Errorf("%s is %+v", id, c)
			}
		}
		s.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: second}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: echo, image: ECHO}]}\n")
		s.pod("second")
	})
	t.Run("a clean stop leaves none of them", func(t *testing.T) {
		t.Logf("stopped in %s", node.Stop(t).Round(time.Millisecond))
		for _, p := range mustProcesses(t, h) {
			if strings.Contains(p.Cmdline, "addon.") || strings.Contains(p.Cmdline, "sleep 3600") {
				t.Errorf("process %d goes on: %s", p.Pid, p.Cmdline)
			}
		}
	})
	t.Run("a directory that others can write", func(t *testing.T) {
		dir := filepath.Join(h.DataDir, "plugins")
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		node.Restart(t)
		code, err := node.ExitCode(within(t, 20*time.Second))
		if err != nil || code == 0 {
			t.Errorf("exit code %d, %v", code, err)
		}
		said := node.Logs()
		said = said[strings.LastIndex(strings.TrimSpace(said), "\n")+1:]
		sentence(t, said, dir, "chmod go-w")
		s.get(h.HTTP(), "http://"+pod.Status.PodIP+":8080")

		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		node.Restart(t)
		if _, err := node.WaitReady(within(t, 60*time.Second)); err != nil {
			t.Fatal(err)
		}
		waitComponent(t, within(t, 30*time.Second), node, "addon.whoami", harness.Component.Ready)
	})
}

// change appends a byte to an installed plugin's file.
func change(t *testing.T, dir, id string) {
	t.Helper()
	path := filepath.Join(dir, id)
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil || len(entries) != 1 {
			t.Fatalf("%s holds %v, %v", path, entries, err)
		}
		path = filepath.Join(path, entries[0].Name())
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
}

// onlySDK sees that the example needs nothing but the SDK and what that needs.
func onlySDK(t *testing.T, exe string) {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json", filepath.Join(root, "docs/examples/addon.whoami/go.mod")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if !r.Indirect && r.Path != "github.com/k3m-io/k3m/sdk" {
			t.Errorf("the example requires %s", r.Path)
		}
	}
	built, err := exec.CommandContext(t.Context(), "go", "version", "-m", exe).Output()
	if err != nil {
		t.Fatal(err)
	}
	heavy := regexp.MustCompile(`(?m)^\s+dep\s+(k8s\.io/\S+|github\.com/containerd/\S+|github\.com/k3m-io/k3m)\s`)
	if found := heavy.FindAllString(string(built), -1); len(found) > 0 {
		t.Errorf("the example holds %q", found)
	}
}
