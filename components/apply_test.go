package components

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk"
)

var portSchema = json.RawMessage(`{"type":"object","additionalProperties":false,"properties":{"port":{"type":"integer"},"fail":{"type":"boolean"}}}`)

// change is a Change to the entries, each with its configuration.
func change(entries []Entry, configs map[string]string) Change {
	c := Change{Selection: Selection{Entries: entries}, Config: map[string]json.RawMessage{}}
	for id, text := range configs {
		c.Config[id] = json.RawMessage(text)
	}
	return c
}

func (n *node) apply(s *Supervisor, c Change) Outcome {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	outcome, err := s.Apply(ctx, c)
	if err != nil {
		n.t.Fatalf("apply: %v", err)
	}
	return outcome
}

// statusOf is false for a component that Status does not know.
func statusOf(s *Supervisor, id string) (ComponentStatus, bool) {
	all := s.Status()
	i := slices.IndexFunc(all, func(st ComponentStatus) bool { return st.ID == id })
	if i < 0 {
		return ComponentStatus{}, false
	}
	return all[i], true
}

func TestSwapLeavesOthersAlone(t *testing.T) {
	n := newNode(t)
	stays := n.witness(sdk.Info{Kind: "runtime", Name: "r"})
	n.witness(sdk.Info{Kind: "dns", Name: "old"})
	var mu sync.Mutex
	var forgotten []string
	s := n.run(func(o *Options) {
		o.Forget = func(i sdk.Info) error {
			mu.Lock()
			defer mu.Unlock()
			forgotten = append(forgotten, i.ID())
			return nil
		}
	})
	before := untilState(t, s, "runtime.r", Ready)
	untilState(t, s, "dns.old", Ready)

	fresh := n.witness(sdk.Info{Kind: "dns", Name: "fresh"})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	events := s.Watch(ctx)
	outcome := n.apply(s, change([]Entry{stays, fresh}, nil))
	if !slices.Equal(outcome.Started, []string{"dns.fresh"}) || !slices.Equal(outcome.Stopped, []string{"dns.old"}) || outcome.Restarted != nil || outcome.Left != nil {
		t.Errorf("outcome %+v", outcome)
	}
	oldGone := false
	for st := range events {
		if st.ID == "dns.old" && st.State == Removed {
			oldGone = true
		}
		if st.ID == "dns.fresh" && st.State == Starting && !oldGone {
			t.Error("the new component worked before the old one was gone")
		}
		if st.ID == "dns.fresh" && st.State == Ready {
			break
		}
	}
	if _, ok := statusOf(s, "dns.old"); ok {
		t.Error("Status still knows the component that went")
	}
	after, _ := statusOf(s, "runtime.r")
	if after.PID != before.PID || after.Restarts != 0 {
		t.Errorf("the runtime was touched: %+v, was %+v", after, before)
	}
	if _, err := os.Stat(filepath.Join(n.dataDir, "components/dns.old/state/cleaned")); err != nil {
		t.Errorf("the old component did not clean up: %v", err)
	}
	if _, err := os.Stat(filepath.Join(n.runDir, "components/dns.old")); err == nil {
		t.Error("the old component's run directory is still there")
	}
	if !slices.Equal(forgotten, []string{"dns.old"}) {
		t.Errorf("identities forgotten: %v", forgotten)
	}
	if n.cgroup != "" {
		g, _ := groupOf(n.cgroup, "dns.old")
		for _, dir := range g {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("cgroup left: %s", dir)
			}
		}
	}
}

func TestChangedConfigurationRestartsItsComponentAlone(t *testing.T) {
	n := newNode(t)
	a := n.witness(sdk.Info{Kind: "addon", Name: "a", ConfigSchema: portSchema})
	b := n.witness(sdk.Info{Kind: "addon", Name: "b", ConfigSchema: portSchema})
	s := n.run(func(o *Options) {
		o.Config = map[string]json.RawMessage{"addon.a": json.RawMessage(`{"port": 1}`), "addon.b": json.RawMessage(`{"port":1,"fail":false}`)}
	})
	untilState(t, s, "addon.a", Ready)
	other := untilState(t, s, "addon.b", Ready)
	outcome := n.apply(s, change([]Entry{a, b}, map[string]string{"addon.a": `{"port":2}`, "addon.b": `{"fail":false, "port":1}`}))
	if !slices.Equal(outcome.Restarted, []string{"addon.a"}) || outcome.Started != nil || outcome.Stopped != nil {
		t.Errorf("outcome %+v", outcome)
	}
	until(t, s, "addon.a", "a new process", func(st ComponentStatus) bool { return st.State == Ready && st.Restarts == 1 })
	given, err := os.ReadFile(filepath.Join(n.dataDir, "components/addon.a/state/given.json"))
	if err != nil || !strings.Contains(string(given), `"port":2`) {
		t.Errorf("the new process was given %s, %v", given, err)
	}
	if st, _ := statusOf(s, "addon.b"); st.PID != other.PID {
		t.Errorf("a block that means the same restarted addon.b")
	}
	if outcome := n.apply(s, change([]Entry{a, b}, map[string]string{"addon.a": `{"port":2}`, "addon.b": `{"port":1,"fail":false}`})); !outcome.Unchanged() {
		t.Errorf("the same change again: %+v", outcome)
	}
}

// The first change is taken over while the second is made: with -race this tells of what both
// touch.
func TestChangesOneAfterAnother(t *testing.T) {
	n := newNode(t)
	a := n.witness(sdk.Info{Kind: "addon", Name: "a", ConfigSchema: portSchema})
	s := n.run()
	untilState(t, s, "addon.a", Ready)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events, taken := s.Watch(ctx), make(chan struct{})
	go func() {
		defer close(taken)
		for st := range events {
			if st.Restarts > 0 {
				return
			}
		}
	}()
	n.apply(s, change([]Entry{a}, map[string]string{"addon.a": `{"port":1}`}))
	second := change([]Entry{a}, nil)
	second.Prepare = func(context.Context) error { <-taken; return nil }
	n.apply(s, second)
	st := until(t, s, "addon.a", "a third process", func(st ComponentStatus) bool { return st.State == Ready && st.Restarts == 2 })
	given, err := os.ReadFile(filepath.Join(n.dataDir, "components/addon.a/state/given.json"))
	if err != nil || strings.Contains(string(given), `"port"`) {
		t.Errorf("%+v was given %s, %v", st, given, err)
	}
}

// A component whose process is not up yet must not go on with settings of yesterday.
func TestChangedConfigurationOfAWaitingComponent(t *testing.T) {
	n := newNode(t)
	a := n.witness(sdk.Info{Kind: "addon", Name: "a", ConfigSchema: portSchema, Requires: []sdk.Requirement{sdk.RequiresAPI}})
	s := n.run(func(o *Options) { o.Config = map[string]json.RawMessage{"addon.a": json.RawMessage(`{"port":1}`)} })
	untilState(t, s, "addon.a", Waiting)
	n.apply(s, change([]Entry{a}, map[string]string{"addon.a": `{"port":2}`}))
	s.Provide(sdk.RequiresAPI)
	untilState(t, s, "addon.a", Ready)
	given, err := os.ReadFile(filepath.Join(n.dataDir, "components/addon.a/state/given.json"))
	if err != nil || !strings.Contains(string(given), `"port":2`) {
		t.Errorf("it was given %s, %v", given, err)
	}
}

// What is refused is refused before anything is touched.
func TestRefusedChanges(t *testing.T) {
	n := newNode(t)
	runtime := n.witness(sdk.Info{Kind: "runtime", Name: "r", ConfigSchema: portSchema})
	cni := n.witness(sdk.Info{Kind: "cni", Name: "c", ConfigSchema: portSchema})
	addon := n.witness(sdk.Info{Kind: "addon", Name: "a", ConfigSchema: portSchema})
	s := n.run()
	for _, e := range n.entries {
		untilState(t, s, e.ID(), Ready)
	}
	before := s.Status()
	all := []Entry{runtime, cni, addon}
	otherRuntime := n.witness(sdk.Info{Kind: "runtime", Name: "other"})
	otherCNI := n.witness(sdk.Info{Kind: "cni", Name: "other"})
	needsRestart := func(err error) bool { var e *NodeRestartError; return errors.As(err, &e) }
	for name, tc := range map[string]struct {
		change Change
		is     func(error) bool
		says   string
	}{
		"another runtime": {change([]Entry{otherRuntime, cni, addon}, nil), needsRestart, "systemctl stop k3m"},
		"its settings":    {change(all, map[string]string{"runtime.r": `{"port":1}`}), needsRestart, "runtime.r"},
		"another cni":     {change([]Entry{runtime, otherCNI, addon}, nil), needsRestart, "cni"},
		"no cni":          {Change{Selection: Selection{Entries: []Entry{runtime, addon}, None: []string{"cni"}}}, needsRestart, "cni.c"},
		"a wrong block": {change(all[:2:2], nil).with(addon, `{"prot":1}`),
			func(err error) bool { var e *ConfigError; return errors.As(err, &e) }, "addon.a.prot"},
		"no rights": {Change{Selection: Selection{Entries: all[:2]}, Prepare: func(context.Context) error { return os.ErrPermission }},
			func(err error) bool { return errors.Is(err, os.ErrPermission) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			outcome, err := s.Apply(context.Background(), tc.change)
			if err == nil || !tc.is(err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("outcome %+v, error %v", outcome, err)
			}
			after := s.Status()
			for i, st := range after {
				if st.PID != before[i].PID || st.State != Ready {
					t.Errorf("%s was touched: %+v", st.ID, st)
				}
			}
		})
	}
}

func (c Change) with(e Entry, config string) Change {
	c.Selection.Entries = append(c.Selection.Entries, e)
	c.Config[e.ID()] = json.RawMessage(config)
	return c
}

func TestConfigurationOfTheCNIRestartsIt(t *testing.T) {
	n := newNode(t)
	cni := n.witness(sdk.Info{Kind: "cni", Name: "c", ConfigSchema: portSchema})
	s := n.run()
	untilState(t, s, "cni.c", Ready)
	n.apply(s, change([]Entry{cni}, map[string]string{"cni.c": `{"port":1}`}))
	until(t, s, "cni.c", "a new process", func(st ComponentStatus) bool { return st.State == Ready && st.Restarts == 1 })
}

// What can't be cleaned up is told, and does not keep the change from being made.
func TestFailedCleanupIsTold(t *testing.T) {
	n := newNode(t)
	n.witness(sdk.Info{Kind: "addon", Name: "a"})
	s := n.run(func(o *Options) { o.Config = map[string]json.RawMessage{"addon.a": json.RawMessage(`{"fail":true}`)} })
	untilState(t, s, "addon.a", Ready)
	outcome := n.apply(s, change(nil, nil))
	if err := outcome.Left["addon.a"]; err == nil || !strings.Contains(err.Error(), "the device is busy") {
		t.Errorf("outcome %+v", outcome)
	}
	if len(s.Status()) != 0 {
		t.Errorf("status %+v", s.Status())
	}
}

// Components that went stop before those that they require, and a stop of the node in the
// middle of a change leaves nothing (which run checks).
func TestStopDuringAChange(t *testing.T) {
	n := newNode(t)
	n.plugin("ignore-stop", "addon.stubborn")
	applied := make(chan error, 1)
	t.Cleanup(func() { // after the stop
		if err := <-applied; err != nil {
			t.Errorf("apply: %v", err)
		}
	})
	s := n.run(func(o *Options) { o.StopTimeout = 2 * time.Second })
	untilState(t, s, "addon.stubborn", Ready)
	fresh := n.witness(sdk.Info{Kind: "addon", Name: "fresh"})
	go func() {
		_, err := s.Apply(context.Background(), change([]Entry{fresh}, nil))
		applied <- err
	}()
	untilState(t, s, "addon.stubborn", Stopping)
}

func TestApplyNeedsARunningSupervisor(t *testing.T) {
	n := newNode(t)
	if _, err := NewSupervisor(n.options()).Apply(context.Background(), Change{}); err == nil {
		t.Error("it was accepted")
	}
}

func TestSwapsInARow(t *testing.T) {
	n := newNode(t)
	a := n.witness(sdk.Info{Kind: "dns", Name: "a"})
	b := n.witness(sdk.Info{Kind: "dns", Name: "b"})
	n.entries = n.entries[:1]
	s := n.run()
	untilState(t, s, "dns.a", Ready)
	for i := range 10 {
		next := []Entry{b, a}[i%2]
		n.apply(s, change([]Entry{next}, nil))
		untilState(t, s, next.ID(), Ready)
		if all := s.Status(); len(all) != 1 {
			t.Errorf("after swap %d: %+v", i, all)
		}
	}
}
