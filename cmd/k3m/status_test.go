package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/health"
)

func TestStatusOnOneScreen(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d - time.Second/2) }
	r := nodeReport{
		Version: "v1.37.2+k3m1", Node: "edge-1", Started: ago(72 * time.Hour),
		Parts: []health.Condition{
			{Part: "datastore", State: health.OK, Since: ago(72 * time.Hour)},
			{Part: "node", State: health.OK, Message: "Ready", Since: ago(72 * time.Hour)},
		},
		Components: []components.ComponentStatus{
			{ID: "runtime.containerd", State: components.Ready, Since: ago(72 * time.Hour)},
			{ID: "dns.coredns", State: components.Ready, Restarts: 2, Since: ago(time.Hour)},
			{ID: "cni.flannel", State: components.Degraded, Reason: "eth0 has no address", Since: ago(12 * time.Second)},
		},
		Later: []string{"kubelet-arg"},
	}
	r.Problems = []problem{componentProblem(r.Components[2])}
	var out strings.Builder
	if err := writeStatus(&out, r); err != nil {
		t.Fatal(err)
	}
	want := `node edge-1, k3m v1.37.2+k3m1, up 3d: 1 of 5 is not well

PART                 STATE      FOR   MESSAGE
datastore            OK         3d
node                 OK         3d    Ready

COMPONENT            STATE      FOR   MESSAGE
runtime.containerd   Ready      3d
dns.coredns          Ready      60m   restarts: 2
cni.flannel          Degraded   12s   eth0 has no address

Not well:
  cni.flannel: Degraded: eth0 has no address
    what to do: look at ` + "`k3m component logs cni.flannel`" + `; k3m tries again by itself

Changed in the configuration, and in force after the next start: kubelet-arg
`
	if out.String() != want {
		t.Errorf("the screen is\n%s\nwant\n%s", out.String(), want)
	}
}

// TestNotReloaded tells a file that no server could start with from one that this server can't
// take up.
func TestNotReloaded(t *testing.T) {
	mistake := &config.Error{Source: "/etc/k3m/config.yaml:1:1", Message: "unknown key `enabel`"}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{unreadableError{mistake}, "the next start would fail"},
		{errors.New("the runtime can't be changed\nwhile the node runs"), "can't be changed; while the node runs; not in force"},
	} {
		c := notReloaded(tc.err)
		if !strings.Contains(c.Message, tc.want) || !strings.Contains(c.Message, strings.Split(tc.err.Error(), "\n")[0]) || c.State == health.OK {
			t.Errorf("%v becomes %+v", tc.err, c)
		}
	}
	if exitCode(unreadableError{mistake}) != 2 {
		t.Error("it is no mistake in the configuration any more")
	}
}

func TestLoads(t *testing.T) {
	start := time.Now()
	at := func(id string, cpu, after time.Duration) components.Usage {
		return components.Usage{ID: id, CPU: cpu, Time: start.Add(after), PSS: 1 << 20}
	}
	loads := loadsOf(
		[]components.Usage{at("a", time.Second, 0), at("b", time.Second, 0)},
		[]components.Usage{at("a", 1500*time.Millisecond, 2*time.Second), at("b", time.Millisecond, 2*time.Second), at("c", time.Second, 2*time.Second)})
	for i, want := range []float64{25, 0, 0} { // b was started again meanwhile, c is new
		if loads[i].CPUPercent != want {
			t.Errorf("%s uses %v %%, want %v", loads[i].ID, loads[i].CPUPercent, want)
		}
	}
}
