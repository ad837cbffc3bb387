package e2e

import (
	"bufio"
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/k3m-io/k3m/test/harness"
)

// report is what the tests read of `k3m status -o json`.
type report struct {
	Well  bool `json:"well"`
	Parts []struct {
		Part, State, Message string
	} `json:"parts"`
	Components []harness.Component `json:"components"`
	Problems   []struct {
		What, Why, Fix string
	} `json:"problems"`
}

// TestStatus looks at a server that is well, that is not, and that is well again.
func TestStatus(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "status")
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	if out, err := install(t, h, badPlugin(t, "fail-in-run", "addon.fails")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	node := h.Serve(t)
	if _, err := node.WaitReady(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
	watch := watchReports(t, h)
	watch.until(t, "all is well", func(r report) bool { return r.Well })

	t.Run("one screen", func(t *testing.T) {
		out := good(t, h, []string{"status"}, "all is well", "datastore", "API", "kubelet", "kube-proxy", "runtime.containerd", "cni.flannel")
		if lines := strings.Count(out, "\n"); lines > 24 {
			t.Errorf("it takes %d lines: %s", lines, out)
		}
		var r report
		if err := json.Unmarshal([]byte(good(t, h, []string{"status", "-o", "json"})), &r); err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Parts {
			if p.State != "OK" {
				t.Errorf("%s is %s: %s", p.Part, p.State, p.Message)
			}
		}
		if !r.Well || len(r.Parts) < 5 || len(r.Components) < 2 {
			t.Errorf("the report is %+v", r)
		}
	})
	t.Run("a component that fails", func(t *testing.T) {
		bad(t, h, 1, []string{"component", "enable", "--timeout=30s", "fails"}, "addon.fails is not ready", "the disk of the test is full", "k3m component logs addon.fails")
		r := watch.until(t, "its problem", func(r report) bool {
			return len(r.Problems) == 1 && r.Problems[0].What == "addon.fails" && strings.Contains(r.Problems[0].Why, "the disk of the test is full")
		})
		if r.Well || !strings.Contains(r.Problems[0].Fix, "k3m component logs addon.fails") {
			t.Errorf("the report is %+v", r)
		}
		bad(t, h, 1, []string{"status"}, "not well", "the disk of the test is full", "what to do: look at")
		good(t, h, []string{"component", "logs", "--tail=50", "fails"}, "the disk of the test is full")
		good(t, h, []string{"component", "disable", "fails"}, "stopped addon.fails")
		watch.until(t, "all is well again", func(r report) bool {
			return r.Well && !slices.ContainsFunc(r.Components, func(c harness.Component) bool { return c.ID == "addon.fails" })
		})
		good(t, h, []string{"status"}, "all is well")
		good(t, h, []string{"component", "logs", "fails"}, "the disk of the test is full")
	})
	t.Run("info", func(t *testing.T) {
		good(t, h, []string{"component", "info", "flannel"}, "cni.flannel", "API rights", "state         Ready", "backend", "vxlan", "KEY", "DEFAULT")
		good(t, h, []string{"component", "info", "addon.fails"}, "not enabled")
		var info struct {
			ID            string
			Rules         []any
			Configuration []struct{ Key, Type string }
			Status        harness.Component
		}
		if err := json.Unmarshal([]byte(good(t, h, []string{"component", "info", "cni", "-o", "json"})), &info); err != nil {
			t.Fatal(err)
		}
		if info.ID != "cni.flannel" || len(info.Rules) == 0 || len(info.Configuration) == 0 || !info.Status.Ready() {
			t.Errorf("the info is %+v", info)
		}
		bad(t, h, 2, []string{"component", "info", "flanel"}, `did you mean "flannel"`)
	})
	t.Run("top", func(t *testing.T) {
		good(t, h, []string{"component", "top"}, "CPU", "MEMORY", "runtime.containerd", "all")
		var loads []struct {
			ID        string
			PSSBytes  int64
			Processes int
		}
		if err := json.Unmarshal([]byte(good(t, h, []string{"component", "top", "--interval=200ms", "-o", "json"})), &loads); err != nil {
			t.Fatal(err)
		}
		if len(loads) < 2 {
			t.Errorf("loads are %+v", loads)
		}
		for _, l := range loads {
			if l.PSSBytes < 1<<20 || l.Processes < 1 {
				t.Errorf("%s uses nothing: %+v", l.ID, l)
			}
		}
	})
	t.Run("logs that go on", func(t *testing.T) {
		cmd := h.K3m(within(t, time.Minute), "component", "logs", "-f", "--tail=0", "flannel")
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		good(t, h, []string{"component", "restart", "flannel"})
		lines := bufio.NewScanner(pipe)
		if !lines.Scan() || !strings.Contains(lines.Text(), "cni.flannel: ") {
			t.Errorf("the first line is %q, %v", lines.Text(), lines.Err())
		}
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		for lines.Scan() { // until it has ended
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after ctrl-C: %v", err)
		}
	})
	t.Run("the runtime is frozen", func(t *testing.T) {
		c := node.Component(t, within(t, 10*time.Second), "runtime.containerd")
		if err := h.Kill(c.Pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		runtime := func(r report) harness.Component {
			i := slices.IndexFunc(r.Components, func(now harness.Component) bool { return now.ID == c.ID })
			return r.Components[max(i, 0)]
		}
		// It is back within some tenths of a second: a report in between may not be sent.
		watch.until(t, "that it was started again", func(r report) bool {
			return r.Well && runtime(r).Restarts == c.Restarts+1 && strings.Contains(runtime(r).LastErr, "has not answered")
		})
	})
	node.Stop(t)
	bad(t, h, 1, []string{"status"}, "no server answers")
}

// reports are those of a `k3m status --watch -o json`.
type reports struct {
	decoder *json.Decoder
	kill    func() error
}

func watchReports(t *testing.T, h *harness.Host) reports {
	t.Helper()
	cmd := h.K3m(t.Context(), "status", "--watch", "-o", "json")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended with the server
		_ = cmd.Wait()
	})
	return reports{json.NewDecoder(bufio.NewReader(pipe)), cmd.Process.Kill}
}

// until reads until a report is as wanted.
func (w reports) until(t *testing.T, what string, wanted func(report) bool) report {
	t.Helper()
	var last report
	late := time.AfterFunc(90*time.Second, func() { _ = w.kill() }) // and so the reading
	defer late.Stop()
	for {
		var r report
		if err := w.decoder.Decode(&r); err != nil {
			t.Fatalf("wait for %s: %v; the last report was %+v", what, err, last)
		}
		if last = r; wanted(r) {
			return r
		}
	}
}
