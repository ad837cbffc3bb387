package components

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk"
	"golang.org/x/sys/unix"
)

func TestComponentBecomesReadyAndStops(t *testing.T) {
	n := newNode(t)
	n.plugin("good", "addon.good")
	s := n.run()
	st := untilState(t, s, "addon.good", Ready)
	if st.PID == 0 || st.Restarts != 0 || st.Since.IsZero() {
		t.Errorf("status %+v", st)
	}
}

// Each bad plugin is contained, and said of in one clear sentence; a good one beside it
// is not touched.
func TestBadPlugins(t *testing.T) {
	tests := map[string]struct {
		state State
		says  string // in the reason
	}{
		"exit-at-once":           {Exited, "the plugin ended with exit code 3 before it shook hands; it said: badplugin: leaving at once"},
		"hang-at-start":          {Exited, "did not shake hands within 2s"},
		"rubbish-on-stdout":      {Refused, "to standard output where the handshake belongs"},
		"endless-on-stdout":      {Refused, "to standard output where the handshake belongs"},
		"other-protocol-version": {Refused, "it speaks protocol version 99 and this k3m speaks 1; update k3m"},
		"net-rpc":                {Refused, "it speaks net/rpc, and k3m speaks gRPC alone"},
		"socket-elsewhere":       {Refused, "is not in its own directory"},
		"huge-info":              {Refused, "a message is too large"},
		"malformed-info":         {Refused, "characters that don't print"},
		"other-info":             {Refused, "it says another info than the one on record (privileges:"},
		"fail-in-run":            {Exited, "the disk of the test is full"},
		"return-early":           {Exited, "nobody asked it to"},
		"panic-in-run":           {Exited, "ended with exit code 2 at work; it said: panic: badplugin: panic in Run"},
		"crash-after-ready":      {Exited, "it said: panic: badplugin: panic after Ready"},
		"flood-stderr":           {Ready, ""},
		"never-ready":            {Starting, ""},
	}
	for mode, want := range tests {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.unspeakable(mode, "addon.bad")
			n.plugin("good", "ingress.good")
			s := n.run(func(o *Options) { o.StartTimeout = 2 * time.Second })
			st := untilState(t, s, "addon.bad", want.state)
			if !strings.Contains(st.Reason, want.says) {
				t.Errorf("reason\n  %s\nlacks\n  %s", st.Reason, want.says)
			}
			if strings.ContainsRune(st.Reason, '\n') {
				t.Errorf("reason is not one line: %q", st.Reason)
			}
			if good := untilState(t, s, "ingress.good", Ready); good.Restarts != 0 {
				t.Errorf("the good component beside it was restarted %d times", good.Restarts)
			}
		})
	}
}

func TestIgnoredStopIsForced(t *testing.T) {
	n := newNode(t)
	n.plugin("ignore-stop", "addon.stubborn")
	s := n.run(func(o *Options) { o.StopTimeout = time.Second })
	untilState(t, s, "addon.stubborn", Ready)
}

func TestChildrenAreEndedToo(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	n.plugin("leave-children", "addon.parent")
	s := n.run()
	st := untilState(t, s, "addon.parent", Ready)
	g, _ := groupOf(n.cgroup, "addon.parent")
	pids, err := g.Procs()
	if err != nil || len(pids) != 2 {
		t.Fatalf("processes %v, %v; want the plugin and its child", pids, err)
	}
	if err := unix.Kill(st.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	st = until(t, s, "addon.parent", "a new process", func(st ComponentStatus) bool { return st.State == Ready && st.Restarts == 1 })
	after, err := g.Procs()
	if err != nil || len(after) != 2 {
		t.Fatalf("processes %v, %v; want those of the new process alone", after, err)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d outlived the plugin", pid)
		}
	}
}

// A kill -9 is mended at once, and is no crash loop.
func TestKilledPluginIsBackSoon(t *testing.T) {
	n := newNode(t)
	n.plugin("good", "runtime.good")
	s := n.run()
	for i := range 3 {
		st := until(t, s, "runtime.good", "ready again", func(st ComponentStatus) bool { return st.State == Ready && st.Restarts == i })
		time.Sleep(time.Until(st.Since.Add(healthyUntilKilled)))
		killed := time.Now()
		if err := unix.Kill(st.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		st = until(t, s, "runtime.good", "ready again", func(st ComponentStatus) bool { return st.State == Ready && st.Restarts == i+1 })
		t.Logf("ready again %v after kill -9", st.Since.Sub(killed).Round(time.Millisecond))
		if !strings.Contains(st.LastError, "killed by signal 9") {
			t.Errorf("last error %q", st.LastError)
		}
	}
}

// A frozen process is found out and replaced.
func TestFrozenPluginIsReplaced(t *testing.T) {
	n := newNode(t)
	n.plugin("good", "addon.good")
	n.pulse = 2 * time.Second
	s := n.run()
	st := untilState(t, s, "addon.good", Ready)
	if err := unix.Kill(st.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	st = until(t, s, "addon.good", "a new process", func(st ComponentStatus) bool { return st.State == Ready && st.Restarts == 1 })
	if st.LastError != "the plugin's process lives but has not answered for 4s" {
		t.Errorf("last error %q", st.LastError)
	}
}

func TestCrashLoopIsNamed(t *testing.T) {
	n := newNode(t)
	n.unspeakable("exit-at-once", "addon.crasher")
	s := n.run()
	st := untilState(t, s, "addon.crasher", CrashLoop)
	if st.Restarts != crashLoopAfter-1 || !st.NextStart.After(st.LastErrorTime) {
		t.Errorf("status %+v", st)
	}
}

func TestOutOfMemoryIsNamed(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	n.plugin("eat-memory", "addon.eater")
	s := n.run()
	st := untilState(t, s, "addon.eater", Exited)
	if !strings.Contains(st.Reason, "went over its memory limit") {
		t.Errorf("reason %q", st.Reason)
	}
}

func TestRequirementsOrderStartAndStop(t *testing.T) {
	n := newNode(t)
	n.plugin("good", "runtime.r")
	n.plugin("overdemand", "cni.c")
	s := n.run(func(o *Options) {
		o.Identity = func(_ context.Context, info sdk.Info, _ int) (string, error) { return "/nowhere/" + info.ID(), nil }
	})
	untilState(t, s, "runtime.r", Ready)
	st := untilState(t, s, "cni.c", Waiting)
	if st.Reason != "waits for api" {
		t.Errorf("reason %q", st.Reason)
	}
	s.Provide(sdk.RequiresAPI)
	untilState(t, s, "cni.c", Starting)
}

func TestRuntimeAndNetworkAreReported(t *testing.T) {
	n := newNode(t)
	n.plugin("good", "runtime.r")
	n.plugin("good", "cni.c")
	s := n.run(func(o *Options) {
		o.Facts = func() sdk.Facts { return sdk.Facts{NodeName: "node-1", Paths: sdk.Paths{RunDir: "/run/test"}} }
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if endpoint, err := s.Runtime(ctx); err != nil || endpoint != "unix:///run/test/badplugin.sock" {
		t.Errorf("Runtime = %q, %v", endpoint, err)
	}
	if gateways, err := s.Network(ctx); err != nil || len(gateways) != 1 || gateways[0].String() != "127.0.0.1" {
		t.Errorf("Network = %v, %v", gateways, err)
	}
}

func TestFalseReportsAreIgnored(t *testing.T) {
	n := newNode(t)
	n.plugin("false-report", "addon.liar")
	s := n.run()
	until(t, s, "addon.liar", "an end or readiness", func(st ComponentStatus) bool { return st.State == Ready || st.State == Exited })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if endpoint, err := s.Runtime(ctx); err == nil {
		t.Errorf("an addon made itself the runtime at %s", endpoint)
	}
}

func TestChangedFileIsRefusedUntilRestart(t *testing.T) {
	n := newNode(t)
	n.copyOf(built.plugin)
	n.plugin("good", "addon.good", n.fromCopy)
	good, err := os.ReadFile(n.entries[0].Executable())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.entries[0].Executable(), append(good, 0), 0o755); err != nil {
		t.Fatal(err)
	}
	s := n.run()
	st := untilState(t, s, "addon.good", Refused)
	if !strings.Contains(st.Reason, "has changed: its SHA-256 is") {
		t.Errorf("reason %q", st.Reason)
	}
	if err := os.WriteFile(n.entries[0].Executable(), good, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Restart("addon.good"); err != nil {
		t.Fatal(err)
	}
	untilState(t, s, "addon.good", Ready)
}

// Whatever the component does when somebody asks, it is ready soon with as many restarts as
// was said.
func TestRestartSaysWhatToWaitFor(t *testing.T) {
	n := newNode(t)
	n.witness(sdk.Info{Kind: "addon", Name: "a", Requires: []sdk.Requirement{sdk.RequiresAPI}})
	s := n.run()
	waiting := untilState(t, s, "addon.a", Waiting)
	if restarts, err := s.Restart("addon.a"); err != nil || restarts != 0 {
		t.Errorf("while it waits: %d restarts, %v", restarts, err)
	}
	s.Provide(sdk.RequiresAPI)
	if st := untilState(t, s, "addon.a", Ready); st.PID != waiting.PID || st.Restarts != 0 {
		t.Errorf("the process that waited was restarted: %+v, was %+v", st, waiting)
	}
	for _, state := range []State{Ready, Stopping, Launching, Starting} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		first := 0
		if state != Ready {
			var err error
			if first, err = s.Restart("addon.a"); err != nil {
				t.Fatal(err)
			}
		}
		for st := range s.Watch(ctx) {
			if st.State == state || st.State == Ready && st.Restarts >= first { // it is soon over
				break
			}
		}
		cancel()
		restarts, err := s.Restart("addon.a")
		if err != nil {
			t.Fatal(err)
		}
		until(t, s, "addon.a", fmt.Sprintf("%d restarts, asked for when it was %s", restarts, state),
			func(st ComponentStatus) bool { return st.State == Ready && st.Restarts >= restarts })
	}
	if _, err := s.Restart("addon.b"); err == nil {
		t.Error("a component that is not there was restarted")
	}
}

func TestWritableDirectoryIsRefused(t *testing.T) {
	n := newNode(t)
	n.copyOf(built.plugin)
	n.plugin("good", "addon.good", n.fromCopy)
	if err := os.Chmod(n.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s := n.run()
	st := untilState(t, s, "addon.good", Refused)
	for _, part := range []string{n.dir, "can be written by other users", "chmod go-w " + n.dir} {
		if !strings.Contains(st.Reason, part) {
			t.Errorf("reason %q lacks %q", st.Reason, part)
		}
	}
	if err := os.Chmod(n.dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// copyOf puts a copy of an executable into the node's own directory, for tests that
// change it.
func (n *node) copyOf(path string) {
	n.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "plugin"), data, 0o755); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) fromCopy(e *Entry) { e.root, e.Path = n.dir, "plugin" }
