package components

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/k3m-io/k3m/sdk"
)

// Change is what a running Supervisor is told to run from now on.
type Change struct {
	// Selection is all that runs on this node, and Config holds the configuration blocks
	// by ID, as in Options.
	Selection Selection
	Config    map[string]json.RawMessage
	// Prepare is called when everything has been checked and before anything is touched,
	// unless nothing changes: to give the rights that new components need. Its error ends
	// the change. Optional.
	Prepare func(ctx context.Context) error
}

// Outcome is what a Change came to; IDs of components.
type Outcome struct {
	// Started were not selected before, Stopped are not any more; Restarted have another
	// configuration or executable. All others went on undisturbed.
	Started, Stopped, Restarted []string
	// Left says what could not be removed from the host, by component; they have stopped.
	Left map[string]error
}

// Unchanged tells that there was nothing to do.
func (o Outcome) Unchanged() bool { return len(o.Started)+len(o.Stopped)+len(o.Restarted) == 0 }

// NodeRestartError is a change that a running node can't make.
type NodeRestartError struct {
	// ID is the component's, or a kind that is to be left empty.
	ID string
	// Why is a clause: "pods are children of the runtime".
	Why string
}

func (e *NodeRestartError) Error() string {
	return fmt.Sprintf("%s can't be changed while the node runs, as %s: stop k3m (`systemctl stop k3m`, or ctrl-C), make the change, and start it again; pods keep running",
		e.ID, e.Why)
}

// ConfigError is a configuration that its component refuses.
type ConfigError struct {
	// ID is the component's.
	ID string
	// Path names the key, as sdk.ConfigProblem's.
	Path string
	// Message says what was found and what is allowed.
	Message string
}

func (e *ConfigError) Error() string {
	return strings.TrimSuffix(e.ID+"."+e.Path, ".") + ": " + e.Message
}

// errDeselected is why a component stops that was not selected any more.
var errDeselected = errors.New("the component was disabled")

// Apply makes a running Supervisor run another selection, or the same with other
// configurations. What is wrong with either is found before anything is touched. Then
// components that went are stopped, those that others require last, and remove what they left
// on the host; new ones are launched meanwhile and work as soon as those of their kind that
// went are gone; those with another configuration are started anew. It returns when what
// went is gone and the rest is on its way: Status tells how it fares. Changes are made one
// after another.
//
// The runtime, and the choice of the cni, stay as they are: *NodeRestartError. ctx bounds
// checking, Prepare and the wait for other changes; once components are touched, only the end
// of Run stops an Apply.
func (s *Supervisor) Apply(ctx context.Context, change Change) (Outcome, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer end()
	d := s.difference(change)
	if err := s.check(ctx, d, change.Selection.None); err != nil {
		return Outcome{}, err
	}
	if d.outcome().Unchanged() {
		return Outcome{}, nil
	}
	if change.Prepare != nil {
		if err := change.Prepare(ctx); err != nil {
			return Outcome{}, err
		}
	}
	return s.swap(d), nil
}

// Check says what Apply would do, or refuse, and touches nothing.
func (s *Supervisor) Check(ctx context.Context, change Change) (Outcome, error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return Outcome{}, err
	}
	defer end()
	d := s.difference(change)
	return d.outcome(), s.check(ctx, d, change.Selection.None)
}

// begin waits for the turn. The context that it returns ends with ctx, or with Run's.
func (s *Supervisor) begin(ctx context.Context) (context.Context, func(), error) {
	select {
	case s.applying <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("change the components: wait for another change: %w", context.Cause(ctx))
	}
	if s.running == nil || s.running.Err() != nil {
		<-s.applying
		return nil, nil, errors.New("change the components: they don't run")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.running, func() { cancel(context.Cause(s.running)) })
	return ctx, func() { stop(); cancel(nil); <-s.applying }, nil
}

func (s *Supervisor) check(ctx context.Context, d difference, none []string) error {
	if err := d.possible(s.opts.Selection.None, none); err != nil {
		return err
	}
	return s.checkConfigs(ctx, d)
}

// settings are what a component's process is started with.
type settings struct {
	entry  Entry
	config json.RawMessage
	rank   int // see sdk.Facts.KindRank
}

// settingsFor are those of all components of a selection, in its order.
func settingsFor(selection Selection, config map[string]json.RawMessage) []settings {
	var all []settings
	ranks := map[string]int{}
	for _, e := range selection.Entries {
		all = append(all, settings{e, config[e.ID()], ranks[e.Info.Kind]})
		ranks[e.Info.Kind]++
	}
	return all
}

// difference is what a Change means for each component.
type difference struct {
	next   []*component // all that run from now on, in the selection's order
	fresh  []*component // of next, those that are new
	gone   []*component // that stop
	change map[*component]settings
}

func (s *Supervisor) difference(change Change) difference {
	d := difference{change: map[*component]settings{}}
	running := s.selected()
	for _, want := range settingsFor(change.Selection, change.Config) {
		i := slices.IndexFunc(running, func(c *component) bool { return c.id == want.entry.ID() })
		if i < 0 {
			c := newComponent(s, want)
			d.next, d.fresh = append(d.next, c), append(d.fresh, c)
			continue
		}
		c := running[i]
		d.next = append(d.next, c)
		if !s.settingsOf(c).equal(want) {
			d.change[c] = want
		}
	}
	for _, c := range running {
		if !slices.Contains(d.next, c) {
			d.gone = append(d.gone, c)
		}
	}
	return d
}

// settingsOf are those that the component runs with, or is about to.
func (s *Supervisor) settingsOf(c *component) settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.pending != nil {
		return *c.pending
	}
	return settings{c.entry, c.config, c.rank}
}

// equal compares configurations by what they mean: a block that is written another way, or
// an empty one where there was none, changes nothing.
func (a settings) equal(b settings) bool {
	return a.rank == b.rank && a.entry.SHA256 == b.entry.SHA256 && a.entry.Executable() == b.entry.Executable() &&
		slices.Equal(a.entry.Args, b.entry.Args) && len(a.entry.Info.Differences(b.entry.Info)) == 0 &&
		bytes.Equal(canonical(a.config), canonical(b.config))
}

// canonical is a block with its keys sorted.
func canonical(config json.RawMessage) []byte {
	value := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(config))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		return config // not an object: compared as it is
	}
	text, err := json.Marshal(value)
	if err != nil || string(text) == "{}" {
		return nil
	}
	return text
}

// possible finds what can't be changed while the node runs.
func (d difference) possible(noneNow, noneThen []string) error {
	for _, c := range slices.Concat(d.gone, d.fresh) {
		switch c.kind() {
		case "runtime":
			return &NodeRestartError{c.id, "the kubelet and the pods depend on one runtime"}
		case "cni":
			return &NodeRestartError{c.id, "the pods that run have the network of one cni component"}
		}
	}
	for c := range d.change {
		if c.kind() == "runtime" {
			return &NodeRestartError{c.id, "the kubelet and the pods depend on it"}
		}
	}
	if !slices.Equal(noneNow, noneThen) {
		return &NodeRestartError{"cni", "the pods that run have the network of one cni component"}
	}
	return nil
}

func (d difference) outcome() Outcome {
	o := Outcome{Started: componentIDs(d.fresh), Stopped: componentIDs(d.gone)}
	for _, c := range d.next {
		if _, ok := d.change[c]; ok {
			o.Restarted = append(o.Restarted, c.id)
		}
	}
	return o
}

func componentIDs(components []*component) []string {
	var ids []string
	for _, c := range components {
		ids = append(ids, c.id)
	}
	return ids
}

// checkConfigs lets each component that can say so check its new configuration, in a process
// of its own without any privileges: the running one is not asked.
func (s *Supervisor) checkConfigs(ctx context.Context, d difference) error {
	inspector := Inspector{Launcher: s.opts.Launcher, CgroupParent: s.opts.CgroupParent, Logger: s.opts.Logger}
	for _, c := range d.next {
		want, changed := d.change[c]
		if slices.Contains(d.fresh, c) {
			want, changed = settings{c.entry, c.config, c.rank}, true
		}
		if !changed || want.config == nil || !want.entry.Info.Has(sdk.AbilityValidateConfig) {
			continue
		}
		problems, err := inspector.ValidateConfig(ctx, want.entry, want.config)
		if err != nil {
			return fmt.Errorf("let component %s check its configuration: %w", c.id, err)
		}
		if len(problems) > 0 {
			return &ConfigError{ID: c.id, Path: problems[0].Path, Message: problems[0].Message}
		}
	}
	return nil
}

// swap makes the change. What it starts lives on when it returns.
func (s *Supervisor) swap(d difference) Outcome {
	outcome := d.outcome()
	s.mu.Lock()
	for _, c := range d.fresh {
		for _, old := range d.gone {
			if old.kind() == c.kind() { // they may want the same ports, rules or devices
				c.after = append(c.after, old)
			}
		}
	}
	for c, want := range d.change {
		c.pending = &want
		c.askRestart()
	}
	s.components, s.leaving = d.next, d.gone
	for _, c := range d.fresh {
		s.publish(c.status)
	}
	s.broadcast()
	s.mu.Unlock()
	for _, c := range d.fresh {
		s.lives.Go(c.live)
	}

	var ends sync.WaitGroup
	ends.Go(func() { s.stopAll(d.gone, errDeselected) })
	left := make([]error, len(d.gone))
	for i, c := range d.gone {
		ends.Go(func() {
			<-c.stopped
			left[i] = s.remove(c)
		})
	}
	ends.Wait()
	for i, c := range d.gone {
		if left[i] != nil {
			if outcome.Left == nil {
				outcome.Left = map[string]error{}
			}
			outcome.Left[c.id] = left[i]
		}
	}
	return outcome
}

// remove removes what a component that has stopped left on the host, and forgets it. Its
// state directory stays: who enables it again finds it as it was.
func (s *Supervisor) remove(c *component) error {
	c.enter(Stopped, "removes what it left on the host")
	var errs []error
	if c.info.Has(sdk.AbilityCleanup) {
		ctx, cancel := context.WithTimeoutCause(s.running, cleanupTimeout, fmt.Errorf("it did not clean up within %s", cleanupTimeout))
		errs = append(errs, newComponent(s, settings{c.entry, c.config, c.rank}).cleanUp(ctx))
		cancel()
	}
	errs = append(errs, os.RemoveAll(filepath.Join(s.opts.RunDir, "components", c.id)))
	if s.opts.Forget != nil {
		errs = append(errs, s.opts.Forget(c.info))
	}
	if s.opts.CgroupParent != "" {
		group, err := groupOf(s.opts.CgroupParent, c.id)
		errs = append(errs, err, group.Remove())
	}
	err := errors.Join(errs...)
	if err != nil {
		c.logger.Warn("disabled, but something was left on the host", "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.gone = true
	s.leaving = slices.DeleteFunc(slices.Clone(s.leaving), func(o *component) bool { return o == c })
	c.set(Removed, "", nil)
	return err
}

// cleanupTimeout is how long a component may take to remove what it left on the host.
const cleanupTimeout = 20 * time.Second
