package components

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/k3m-io/k3m/components/cgroup"
	"github.com/k3m-io/k3m/components/launch"
	"github.com/k3m-io/k3m/sdk"
	"golang.org/x/sys/unix"
)

// helperCore makes the test's own executable run as a core: its value is the node's
// directory, data and cgroup.
const helperCore = "K3M_TEST_CORE"

// runHelperCore supervises what stands in its environment until it is killed.
func runHelperCore() int {
	fields := strings.Split(os.Getenv(helperCore), ",")
	file, err := os.Open(fields[4])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	entries, err := DecodeRecord(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := range entries {
		entries[i].root = fields[5]
	}
	s := NewSupervisor(Options{
		Selection: Selection{Entries: entries}, Launcher: fields[0], DataDir: fields[1], RunDir: fields[2], CgroupParent: fields[3],
		Facts:  func() sdk.Facts { return sdk.Facts{NodeName: "node-1"} },
		Logger: hclog.New(&hclog.LoggerOptions{Output: os.Stderr}),
	})
	go func() {
		for st := range s.Watch(context.Background()) {
			if st.State == Ready {
				fmt.Println("ready", st.ID)
			}
		}
	}()
	if err := s.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// startCore starts a core in a process of its own and returns when its components are
// ready.
func (n *node) startCore() *exec.Cmd {
	n.t.Helper()
	data, err := EncodeRecord(n.entries)
	if err != nil {
		n.t.Fatal(err)
	}
	record := n.dir + "/record.json"
	if err := os.WriteFile(record, data, 0o600); err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.CommandContext(n.t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), helperCore+"="+strings.Join([]string{built.launcher, n.dataDir, n.runDir, n.cgroup, record, built.dir}, ","))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	for range n.entries {
		var id string
		if _, err := fmt.Fscanf(stdout, "ready %s\n", &id); err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			n.t.Fatalf("core: %v\n%s", err, stderr.String())
		}
	}
	return cmd
}

// A killed core leaves no plugin, no child of a plugin, no cgroup and no reaper behind.
func TestKilledCoreLeavesNothing(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	n.plugin("good", "addon.good")
	n.plugin("ignore-stop", "addon.stubborn")
	n.plugin("leave-children", "ingress.parent")
	core := n.startCore()
	_ = core.Process.Kill()
	_ = core.Wait()
	if left := processesWith(n.dir); len(left) == 0 {
		t.Fatal("the test saw no processes at all")
	}
	deadline := time.Now().Add(15 * time.Second)
	for len(processesWith(n.dir)) > 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	n.nothingLeft()
}

// The next core does not wait for the grace period of the one before.
func TestNextCoreTakesOver(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	n.plugin("ignore-stop", "addon.stubborn")
	first := n.startCore()
	g, err := groupOf(n.cgroup, "addon.stubborn")
	if err != nil {
		t.Fatal(err)
	}
	before, err := g.Procs()
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Process.Kill()
	_ = first.Wait()
	start := time.Now()
	s := n.run(func(o *Options) { o.StopTimeout = time.Second })
	untilState(t, s, "addon.stubborn", Ready)
	if took := time.Since(start); took >= launch.Grace {
		t.Errorf("the second core's component was ready after %v", took)
	}
	if alive(before[0]) {
		t.Errorf("process %d of the first core lives", before[0])
	}
}

// What is in the cgroups of shims and pods is nobody's to end.
func TestShimsAndPodsAreLeftAlone(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	n.plugin("good", "runtime.good")
	var groups []cgroup.Group
	var sleepers []*exec.Cmd
	for _, name := range []string{"shims", "kubepods", "kubepods.slice"} {
		g, err := groupOf(n.cgroup, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := makeGroup(g, sdk.Limits{}, 0); err != nil {
			t.Fatal(err)
		}
		sleeper := exec.CommandContext(context.Background(), "sleep", "60")
		if err := sleeper.Start(); err != nil {
			t.Fatal(err)
		}
		for _, dir := range g {
			if err := os.WriteFile(dir+"/cgroup.procs", []byte(fmt.Sprint(sleeper.Process.Pid)), 0); err != nil {
				t.Error(err)
			}
		}
		groups, sleepers = append(groups, g), append(sleepers, sleeper)
	}
	t.Cleanup(func() {
		for i, sleeper := range sleepers {
			if err := sleeper.Process.Signal(unix.Signal(0)); err != nil {
				t.Errorf("the process in %s is gone: %v", groups[i][0], err)
			}
			_ = sleeper.Process.Kill()
			_ = sleeper.Wait()
			if err := groups[i].Remove(); err != nil {
				t.Error(err)
			}
		}
		parent, _ := groupOf(n.cgroup, "")
		_ = parent.Remove()
		n.nothingLeft()
	})
	core := n.startCore()
	_ = core.Process.Kill()
	_ = core.Wait()
	deadline := time.Now().Add(15 * time.Second)
	for len(processesWith(n.dir)) > 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
}
