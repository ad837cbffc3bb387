package components

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/k3m-io/k3m/sdk"
)

// The tests drive real processes: the launcher and sdk/plugintest's badplugin, built once.
var built struct{ dir, launcher, plugin, witness string }

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv(helperCore) != "" {
		return runHelperCore()
	}
	if slices.Contains(os.Args, "-test.fuzzworker") {
		return m.Run() // parsers alone
	}
	dir, err := os.MkdirTemp("", "k3m-components-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	_ = os.Chmod(dir, 0o755)
	built.dir, built.launcher = dir, filepath.Join(dir, "k3m-launch")
	built.plugin, built.witness = filepath.Join(dir, "badplugin"), filepath.Join(dir, "witness")
	for path, pkg := range map[string]string{
		built.launcher: "github.com/k3m-io/k3m/cmd/k3m-launch",
		built.plugin:   "github.com/k3m-io/k3m/sdk/plugintest/badplugin",
		built.witness:  "github.com/k3m-io/k3m/components/testdata/witness",
	} {
		cmd := exec.CommandContext(context.Background(), "go", "build", "-o", path, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", pkg, err, out)
			return 1
		}
	}
	return m.Run()
}

// needRoot skips a test that watches privileges being dropped.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it observes user ids, capabilities, cgroups and namespaces of plugin processes")
	}
}

// node is a place for components to run in.
type node struct {
	t               *testing.T
	dir             string
	dataDir, runDir string
	cgroup          string
	log             *logBuffer
	entries         []Entry
	pulse           time.Duration // 0: as always
}

func newNode(t *testing.T) *node {
	t.Helper()
	// Not t.TempDir: its name is too long for a socket below it.
	dir, err := os.MkdirTemp("", "k3m-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	_ = os.Chmod(dir, 0o755)
	n := &node{t: t, dir: dir, dataDir: filepath.Join(dir, "data"), runDir: filepath.Join(dir, "run"), log: &logBuffer{}}
	if os.Geteuid() == 0 {
		n.cgroup = "/" + filepath.Base(dir)
	}
	return n
}

// plugin records badplugin in one of its modes, as it says it is when it is inspected.
func (n *node) plugin(mode, id string, change ...func(*Entry)) Entry {
	n.t.Helper()
	e, err := Inspector{Launcher: built.launcher}.Inspect(context.Background(), built.plugin, mode, id)
	if err != nil {
		n.t.Fatalf("inspect badplugin %s: %v", mode, err)
	}
	return n.record(e, change...)
}

// unspeakable records badplugin in a mode in which it can't be inspected.
func (n *node) unspeakable(mode, id string) Entry {
	n.t.Helper()
	return n.plugin("good", id, func(e *Entry) {
		e.Args = []string{mode, id}
		e.Info.Summary = strings.ReplaceAll(e.Info.Summary, "good", mode)
	})
}

// alive is false for a process that is gone, or that its parent has yet to take note of.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// witness records a component that says of itself what info says, and behaves well.
func (n *node) witness(info sdk.Info) Entry {
	n.t.Helper()
	info.Version, info.Summary = "1.0.0", "bears witness"
	if info.Scope == "" {
		info.Scope = sdk.NodeScope
	}
	arg, err := json.Marshal(info)
	if err != nil {
		n.t.Fatal(err)
	}
	e, err := Inspector{Launcher: built.launcher}.Inspect(context.Background(), built.witness, string(arg))
	if err != nil {
		n.t.Fatal(err)
	}
	return n.record(e)
}

func (n *node) record(e Entry, change ...func(*Entry)) Entry {
	for _, f := range change {
		f(&e)
	}
	n.entries = append(n.entries, e)
	return e
}

func (n *node) options() Options {
	return Options{
		Selection: Selection{Entries: n.entries}, Launcher: built.launcher,
		DataDir: n.dataDir, RunDir: n.runDir, CgroupParent: n.cgroup,
		Facts:  func() sdk.Facts { return sdk.Facts{NodeName: "node-1"} },
		Logger: hclog.New(&hclog.LoggerOptions{Output: n.log, Level: hclog.Debug}),
	}
}

// run starts a supervisor that is stopped, and found to have left nothing, at the test's
// end.
func (n *node) run(change ...func(*Options)) *Supervisor {
	n.t.Helper()
	o := n.options()
	for _, f := range change {
		f(&o)
	}
	s := NewSupervisor(o)
	if n.pulse != 0 {
		s.pulse = n.pulse
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	n.t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				n.t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			n.t.Error("Run did not return within 20 s of its context's end")
		}
		n.nothingLeft()
		if n.t.Failed() {
			n.t.Logf("log:\n%s", n.log)
		}
	})
	return s
}

// nothingLeft checks that no process has an argument below the node's directory and no
// cgroup of it exists.
func (n *node) nothingLeft() {
	n.t.Helper()
	if left := processesWith(n.dir); len(left) > 0 {
		n.t.Errorf("processes left: %v", left)
	}
	if n.cgroup != "" {
		g, err := groupOf(n.cgroup, "")
		if err != nil {
			n.t.Fatal(err)
		}
		for _, dir := range g {
			if _, err := os.Stat(dir); err == nil {
				n.t.Errorf("cgroup left: %s", dir)
			}
		}
	}
}

// processesWith finds processes by a text in their arguments or environment.
func processesWith(text string) []string {
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if filepath.Base(dir) == fmt.Sprint(os.Getpid()) {
			continue
		}
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if strings.Contains(string(args)+string(env), text) {
			found = append(found, fmt.Sprintf("%s (%q)", filepath.Base(dir), args))
		}
	}
	return found
}

// until waits for a component's status to be as wanted, and returns it.
func until(t *testing.T, s *Supervisor, id, what string, wanted func(ComponentStatus) bool) ComponentStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var seen []string
	for st := range s.Watch(ctx) {
		if st.ID != id {
			continue
		}
		if wanted(st) {
			return st
		}
		seen = append(seen, fmt.Sprintf("%s %s", st.State, st.Reason))
	}
	t.Fatalf("%s: never saw %s; saw:\n  %s", id, what, strings.Join(seen, "\n  "))
	return ComponentStatus{}
}

func untilState(t *testing.T, s *Supervisor, id string, state State) ComponentStatus {
	t.Helper()
	return until(t, s, id, string(state), func(st ComponentStatus) bool { return st.State == state })
}

// logBuffer is a log that a test can read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
