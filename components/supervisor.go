package components

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/k3m-io/k3m/sdk"
)

// Options are what a Supervisor needs to know.
type Options struct {
	// Selection is what runs on this node (see Select and Selection.OfScope).
	Selection Selection
	// Launcher is the path of the k3m-launch executable.
	Launcher string
	// DataDir and RunDir are the node's own, absolute.
	DataDir, RunDir string
	// CgroupParent is the cgroup below which each component gets one: "/k3m". When it is
	// empty, or the process is not root, components run without.
	CgroupParent string
	// Facts returns what is known of the node and the cluster. It is called before each
	// Run, when all that the component requires is there; pod gateways and the runtime's
	// endpoint are filled in by the supervisor.
	Facts func() sdk.Facts
	// Identity makes the component's own kubeconfig, readable by the user id, and returns
	// its path. It is called before each Run of a component that requires the API. ctx
	// ends when the component is stopped.
	Identity func(ctx context.Context, info sdk.Info, uid int) (string, error)
	// ServingCertificate makes the TLS certificate of a component that asks for one, and
	// returns the paths of it and its key, readable by the user id alone. It is called
	// after Identity, under the same terms.
	ServingCertificate func(ctx context.Context, info sdk.Info, uid int) (cert, key string, err error)
	// Config holds the components' configuration blocks by ID.
	Config map[string]json.RawMessage
	// Logger is the parent of the components' loggers. Its level is theirs.
	Logger hclog.Logger
	// StartTimeout is how long a process may take to shake hands (default 20 s),
	// StopTimeout how long all components together may take to stop (default 6 s).
	StartTimeout, StopTimeout time.Duration
	// Forget removes what Identity made for a component that is not selected any more.
	Forget func(info sdk.Info) error
}

// Supervisor runs the components of a node.
//
//	NewSupervisor ── Run (once; blocks until ctx ends and everything has stopped)
//	                 all other methods at any time, by any goroutine
type Supervisor struct {
	opts   Options
	uids   *uidTable
	reaper *reaper
	pulse  time.Duration
	lives  sync.WaitGroup // of components; grows while applying is held

	applying chan struct{}   // holds a token while Apply works
	running  context.Context // Run's own, with applying held

	mu         sync.Mutex
	components []*component  // replaced as a whole, never changed
	leaving    []*component  // not selected any more, and not gone yet
	changed    chan struct{} // closed and replaced whenever anything below, or a status, changes
	provided   map[sdk.Requirement]bool
	endpoint   string
	gateways   []netip.Addr
	watchers   []*watcher
}

// NewSupervisor has no side effects.
func NewSupervisor(o Options) *Supervisor {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 20 * time.Second
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 6 * time.Second
	}
	if os.Geteuid() != 0 {
		o.CgroupParent = ""
	}
	s := &Supervisor{opts: o, uids: newUIDTable(o.DataDir), pulse: pulseInterval, applying: make(chan struct{}, 1),
		changed: make(chan struct{}), provided: map[sdk.Requirement]bool{}}
	for _, with := range settingsFor(o.Selection, o.Config) {
		s.components = append(s.components, newComponent(s, with))
	}
	return s
}

// Run launches all components and keeps them running. When ctx ends it stops them, those
// that others require last, and returns when no process is left. The error says what
// could not be started at all, or not be ended; a component that fails is not an error of
// Run's.
func (s *Supervisor) Run(ctx context.Context) error {
	if err := s.makeRoom(ctx); err != nil {
		return err
	}
	components := filepath.Join(s.opts.RunDir, "components")
	reaper, err := startReaper(s.opts.Launcher, filepath.Join(components, "reaper.lock"),
		filepath.Join(components, "reaper.log"), s.opts.Logger)
	if err != nil {
		return fmt.Errorf("run components: %w", err)
	}
	s.reaper = reaper
	defer reaper.close()

	s.applying <- struct{}{}
	s.running = ctx
	for _, c := range s.selected() {
		s.lives.Go(c.live)
	}
	<-s.applying
	<-ctx.Done()
	s.applying <- struct{}{} // an Apply at work ends with ctx, and none begins any more
	<-s.applying
	s.stopAll(s.selected(), context.Cause(ctx))
	s.lives.Wait()
	return s.removeGroups()
}

// selected are the components that run, or are to.
func (s *Supervisor) selected() []*component {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.components
}

// makeRoom makes the directories above the components' own, and ends what an earlier core
// left.
func (s *Supervisor) makeRoom(ctx context.Context) error {
	for _, dir := range []string{s.opts.DataDir, s.opts.RunDir} {
		if err := errors.Join(makePassable(dir), makePassable(filepath.Join(dir, "components"))); err != nil {
			return fmt.Errorf("make the components' directories: %w", err)
		}
	}
	if err := s.sweep(ctx); err != nil {
		return fmt.Errorf("end the plugins of an earlier k3m: %w", err)
	}
	return nil
}

// stopAll tells components to stop once those among them that require them have stopped,
// and returns when all know. They share one deadline, but a stubborn one does not use up
// the time of those that it requires.
func (s *Supervisor) stopAll(all []*component, cause error) {
	start := time.Now()
	var waits sync.WaitGroup
	for _, c := range all {
		waits.Go(func() {
			dependents, timeout := s.dependents(c, all), s.opts.StopTimeout
			if len(dependents) == 0 {
				timeout = timeout * 5 / 8
			}
			for _, d := range dependents {
				<-d.stopped
			}
			c.stop(start.Add(timeout), cause)
		})
	}
	waits.Wait()
}

// dependents are those that require c's kind.
func (s *Supervisor) dependents(c *component, all []*component) []*component {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(all), func(d *component) bool {
		return !slices.Contains(d.info.Requires, sdk.Requirement(c.info.Kind))
	})
}

// Provide says that sdk.RequiresAPI or sdk.RequiresNode is there from now on.
func (s *Supervisor) Provide(r sdk.Requirement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.provided[r] {
		s.provided[r] = true
		s.broadcast()
	}
}

// broadcast wakes all that wait for a change. The lock is held.
func (s *Supervisor) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await calls met, with the lock held, now and after each change until it returns true,
// or ctx or done ends.
func (s *Supervisor) await(ctx context.Context, done <-chan struct{}, met func() bool) error {
	for {
		s.mu.Lock()
		ok := met() // which may change something itself
		changed := s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// missing returns which of the requirements are not there. The lock is held.
func (s *Supervisor) missing(info sdk.Info) []sdk.Requirement {
	return slices.DeleteFunc(slices.Clone(info.Requires), func(r sdk.Requirement) bool {
		if r == sdk.RequiresAPI || r == sdk.RequiresNode {
			return s.provided[r]
		}
		return slices.Contains(s.opts.Selection.None, string(r)) || slices.ContainsFunc(s.components, func(c *component) bool {
			return c.info.Kind == string(r) && c.status.State.serving()
		})
	})
}

// Runtime blocks until the runtime has reported its CRI endpoint, "unix:///…", and
// returns it.
func (s *Supervisor) Runtime(ctx context.Context) (string, error) {
	var endpoint string
	err := s.await(ctx, nil, func() bool { endpoint = s.endpoint; return endpoint != "" })
	if err != nil {
		return "", fmt.Errorf("wait for the runtime's endpoint: %w%s", err, s.whyNot("runtime"))
	}
	return endpoint, nil
}

// Network blocks until the cni component has reported this node's addresses on the pod
// network, and returns them. With cni=none they are the node's own addresses.
func (s *Supervisor) Network(ctx context.Context) ([]netip.Addr, error) {
	if slices.Contains(s.opts.Selection.None, "cni") {
		return s.opts.Facts().NodeIPs, nil
	}
	var gateways []netip.Addr
	err := s.await(ctx, nil, func() bool { gateways = s.gateways; return len(gateways) > 0 })
	if err != nil {
		return nil, fmt.Errorf("wait for the pod network: %w%s", err, s.whyNot("cni"))
	}
	return slices.Clone(gateways), nil
}

// PodGateways are this node's addresses on the pod network; none before the cni component has
// reported them. With cni=none they are the node's own addresses.
func (s *Supervisor) PodGateways() []netip.Addr { return s.facts().PodGateways }

// whyNot says how the components of a kind fare, for an error.
func (s *Supervisor) whyNot(kind string) string {
	for _, status := range s.Status() {
		if k, _, _ := cutID(status.ID); k == kind && !status.State.serving() {
			why := status.Reason
			if status.LastError != "" {
				why = status.LastError
			}
			return fmt.Sprintf(" (%s is in state %s: %s)", status.ID, status.State, why)
		}
	}
	return ""
}

// facts completes Options.Facts with what the components have reported.
func (s *Supervisor) facts() sdk.Facts {
	f := s.opts.Facts()
	s.mu.Lock()
	defer s.mu.Unlock()
	f.RuntimeEndpoint = s.endpoint
	f.PodGateways = slices.Clone(s.gateways)
	if slices.Contains(s.opts.Selection.None, "cni") {
		f.PodGateways = slices.Clone(f.NodeIPs)
	}
	f.CgroupParent = s.opts.CgroupParent
	return f
}

// Restart stops a component's process, if one is at work, and starts it again at once: one
// that was refused or waits for its next start, too. A process that is being started, or waits
// for what it requires, is new already and left alone.
//
// It returns at once, and says how many restarts the component's status has when the process
// is up that was asked for here: one with fewer is the process of before.
func (s *Supervisor) Restart(id string) (restarts int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.components, func(c *component) bool { return c.id == id })
	if i < 0 {
		return 0, fmt.Errorf("restart component %s: it is not enabled on this node", id)
	}
	c := s.components[i]
	if c.status.State == Launching || c.status.State == Waiting {
		return c.status.Restarts, nil
	}
	c.askRestart()
	return c.status.Restarts + 1, nil
}

// Status returns how all components fare: those that run, in the selection's order, and then
// those that are about to go.
func (s *Supervisor) Status() []ComponentStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statuses()
}

// statuses is called with the lock held.
func (s *Supervisor) statuses() []ComponentStatus {
	var out []ComponentStatus
	for _, c := range slices.Concat(s.components, s.leaving) {
		out = append(out, c.status)
	}
	return out
}
