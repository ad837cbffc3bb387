package components

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/k3m-io/k3m/components/cgroup"
	"github.com/k3m-io/k3m/components/launch"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// slowStart is after how long a component's status says that it is not ready yet. Its
// process is left alone: it may wait for something outside.
const slowStart = time.Minute

var errRestart = errors.New("a restart was asked for")

// component is one component's life; live is its only goroutine.
type component struct {
	id     string
	entry  Entry // this and info change between processes, with sup.mu held
	info   sdk.Info
	sup    *Supervisor
	logger hclog.Logger
	uid    int             // -1: the core's own
	config json.RawMessage // nil: it has none
	rank   int             // see sdk.Facts.KindRank; changes as entry does

	ctx      context.Context // ends when the component is to stop
	cancel   context.CancelCauseFunc
	deadline time.Time // until when it may take; written before ctx ends
	restart  chan struct{}
	stopped  chan struct{} // closed when live has ended

	pending *settings             // what the next process runs with; guarded by sup.mu
	after   []*component          // that must be gone first; guarded by sup.mu
	gone    bool                  // nothing of it is left; guarded by sup.mu
	status  ComponentStatus       // guarded by sup.mu
	served  []nodestatus.Endpoint // what the process says that it serves; guarded by sup.mu
	owned   []json.RawMessage     // see sdk.Host.Own; nil before it was said, guarded by sup.mu
	process *process              // whose Run goes on; guarded by sup.mu
	backoff backoff
}

func newComponent(s *Supervisor, with settings) *component {
	e := with.entry
	c := &component{
		id: e.ID(), entry: e, info: e.Info, config: with.config, rank: with.rank, sup: s, logger: s.opts.Logger.ResetNamed(e.ID()),
		restart: make(chan struct{}, 1), stopped: make(chan struct{}),
		status: ComponentStatus{
			ID: e.ID(), Version: e.Info.Version, Summary: e.Info.Summary, Scope: e.Info.Scope,
			Installed: e.Installed(), State: Launching, Since: time.Now(),
		},
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// kind is part of the ID, which never changes: any goroutine may ask.
func (c *component) kind() string {
	kind, _, _ := strings.Cut(c.id, ".")
	return kind
}

// facts are the supervisor's, with what is the component's own.
func (c *component) facts() sdk.Facts {
	f := c.sup.facts()
	f.KindRank = c.rank
	return f
}

func (c *component) stop(deadline time.Time, cause error) {
	c.deadline = deadline
	c.cancel(cause)
}

// live starts process after process until the component is stopped.
func (c *component) live() {
	defer close(c.stopped)
	for first := true; ; first = false {
		c.begin(first)
		ready, err := c.attempt()
		c.update(func(st *ComponentStatus) { st.PID = 0 })
		var refused refusedError
		switch {
		case c.ctx.Err() != nil:
			if err != nil {
				c.logger.Warn("stopped with an error", "error", err)
			}
			c.enter(Stopped, "")
			return
		case errors.Is(err, errRestart):
			continue
		case errors.As(err, &refused):
			c.fail(err)
			c.enter(Refused, err.Error())
			c.logger.Error("refused", "reason", err)
			if !c.pause(nil) {
				c.enter(Stopped, "")
				return
			}
		default:
			if !c.backOff(ready, err) {
				c.enter(Stopped, "")
				return
			}
		}
	}
}

// backOff waits for the next start; false means that the component is to stop.
func (c *component) backOff(ready time.Duration, err error) bool {
	c.fail(err)
	c.enter(Exited, err.Error())
	var killed killedError
	delay := c.backoff.next(ready, errors.As(err, &killed))
	state := Backoff
	if c.backoff.crashLoop() {
		state = CrashLoop
	}
	c.logger.Error("failed", "error", err, "failures", c.backoff.failures, "restart", delay.Round(time.Millisecond))
	c.change(state, err.Error(), func(st *ComponentStatus) { st.NextStart = time.Now().Add(delay) })
	timer := time.NewTimer(delay)
	defer timer.Stop()
	return c.pause(timer.C)
}

// pause waits for the timer, or for Restart; false means that the component is to stop.
func (c *component) pause(timer <-chan time.Time) bool {
	select {
	case <-timer:
		return true
	case <-c.restart:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// attempt is one process's life. It returns how long the component was ready and why the
// process ended; nothing of it is left.
func (c *component) attempt() (ready time.Duration, err error) {
	out := newOutput(c.logger)
	p, d, err := c.launch(out)
	if err != nil {
		return 0, err
	}
	c.update(func(st *ComponentStatus) { st.PID = p.pid() })
	own, err := c.prepare(p)
	if err == nil {
		return c.run(p, client.RunRequest{
			Facts: c.facts(), Config: c.config, StateDir: d.state,
			Kubeconfig: own.kubeconfig, ServingCert: own.cert, ServingKey: own.key,
		})
	}
	if c.ctx.Err() != nil || errors.Is(err, errRestart) {
		c.enter(Stopping, "")
		if endErr := p.end(0); endErr != nil || c.ctx.Err() != nil {
			return 0, endErr
		}
		return 0, errRestart
	}
	return 0, errors.Join(err, p.end(0))
}

// launch starts the process and checks that it is who it should be.
func (c *component) launch(out *output) (*process, dirs, error) {
	executable, err := checkTrusted(c.entry.Executable())
	if err != nil {
		return nil, dirs{}, refusedError{err}
	}
	if c.uid, err = c.userID(); err != nil {
		return nil, dirs{}, err
	}
	d, err := makeDirs(c.sup.opts.DataDir, c.sup.opts.RunDir, c.info.ID(), c.uid)
	if err != nil {
		return nil, d, err
	}
	group, err := c.freshGroup()
	if err != nil {
		return nil, d, err
	}
	spec, lack, err := launchSpec(c.entry, executable, c.uid, group)
	if err != nil {
		return nil, d, err
	}
	if len(lack) > 0 {
		c.logger.Warn("the host keeps capabilities from k3m that the component asks for; it runs without", "capabilities", lack)
	}
	c.update(func(st *ComponentStatus) {
		st.UID, st.Capabilities = max(c.uid, 0), nil
		for _, number := range spec.Capabilities {
			st.Capabilities = append(st.Capabilities, sdk.Capabilities()[number])
		}
	})
	p, err := startProcess(c.ctx, processSpec{
		launcher: c.sup.opts.Launcher, spec: spec, attr: ownSession(), socketDir: d.run, group: group, output: out,
		startTimeout: c.sup.opts.StartTimeout,
		env:          []string{"HOME=" + d.state, client.EnvLogLevel + "=" + levelName(c.logger)},
	})
	var failure *launch.Failure
	if errors.As(err, &failure) && failure.Refused {
		err = refusedError{fmt.Errorf("%w; %s", failure, c.entry.mend())}
	}
	return p, d, err
}

// userID is the user that the component runs as.
func (c *component) userID() (int, error) {
	switch {
	case os.Geteuid() != 0, isRuntime(c.info):
		return -1, nil
	case c.info.Privileges.Root:
		return 0, nil
	}
	return c.sup.uids.uid(c.info.ID())
}

// freshGroup makes the component's cgroup, in which no process is.
func (c *component) freshGroup() (cgroup.Group, error) {
	if c.sup.opts.CgroupParent == "" {
		return nil, nil
	}
	g, err := groupOf(c.sup.opts.CgroupParent, c.info.ID())
	if err != nil || len(g) == 0 {
		return nil, err
	}
	if c.sup.reaper != nil { // Cleanup has none
		if err := c.sup.reaper.add(g); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(c.ctx, killTimeout)
	defer cancel()
	if err := g.Kill(ctx); err != nil {
		return nil, err
	}
	unlimited, err := makeGroup(g, c.info.Limits, processLimit(c.info))
	if unlimited != nil {
		c.logger.Warn("the component runs with less limits than it has", "error", unlimited)
	}
	return g, err
}

// prepare asks the process who it is and whether it likes its configuration, and waits for
// what the component requires.
func (c *component) prepare(p *process) (credentials, error) {
	if err := c.identify(p); err != nil {
		return credentials{}, err
	}
	if err := c.checkConfig(p); err != nil {
		return credentials{}, err
	}
	err := c.sup.await(c.ctx, p.died(), func() bool {
		reason := c.waitsFor()
		if reason != "" {
			c.set(Waiting, reason, nil)
		}
		return reason == "" || c.pending != nil
	})
	if err != nil {
		return credentials{}, err
	}
	select {
	case <-p.died():
		return credentials{}, p.death("while it waited")
	default:
	}
	if c.superseded() {
		return credentials{}, errRestart
	}
	c.enter(Starting, "")
	return c.credentials()
}

// credentials are the paths of what a component proves itself with; empty where it has no
// such thing.
type credentials struct{ kubeconfig, cert, key string }

func (c *component) credentials() (own credentials, err error) {
	if !slices.Contains(c.info.Requires, sdk.RequiresAPI) {
		return own, nil
	}
	if c.sup.opts.Identity != nil {
		if own.kubeconfig, err = c.sup.opts.Identity(c.ctx, c.info, max(c.uid, 0)); err != nil {
			return own, fmt.Errorf("make the component's identity: %w", err)
		}
	}
	if c.info.ServingCertificate && c.sup.opts.ServingCertificate != nil {
		if own.cert, own.key, err = c.sup.opts.ServingCertificate(c.ctx, c.info, max(c.uid, 0)); err != nil {
			return own, fmt.Errorf("make the component's serving certificate: %w", err)
		}
	}
	return own, nil
}

// identify checks that the process says of itself what is on record.
func (c *component) identify(p *process) error {
	ctx, cancel := c.askContext("did not say who it is")
	defer cancel()
	info, err := p.Info(ctx)
	switch {
	case errors.Is(err, client.ErrGone):
		return c.awaitDeath(p, "before it said who it is")
	case errors.Is(err, client.ErrProtocol):
		return refusedError{err}
	case err != nil:
		return err
	}
	return checkInfo(c.entry, info)
}

// checkConfig refuses a configuration that the component itself refuses: it would fail
// with it each time.
func (c *component) checkConfig(p *process) error {
	if c.config == nil || !c.info.Has(sdk.AbilityValidateConfig) {
		return nil
	}
	ctx, cancel := c.askContext("did not check its configuration")
	defer cancel()
	problems, err := p.ValidateConfig(ctx, c.config)
	switch {
	case errors.Is(err, client.ErrGone):
		return c.awaitDeath(p, "while it checked its configuration")
	case err != nil:
		return err
	case len(problems) == 0:
		return nil
	}
	var all []string
	for _, problem := range problems {
		all = append(all, strings.TrimPrefix(problem.Path+": "+problem.Message, ": "))
	}
	return refusedError{fmt.Errorf("its configuration is wrong: %s; correct it with `k3m component configure`, or in the file and send k3m a SIGHUP", strings.Join(all, "; "))}
}

// askContext bounds a call that a plugin answers at once.
func (c *component) askContext(failing string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(c.ctx, askTimeout, fmt.Errorf("the plugin %s within %s", failing, askTimeout))
}

// awaitDeath is called when the connection broke: the process is dying, or broken.
func (c *component) awaitDeath(p *process, when string) error {
	select {
	case <-p.died():
		return p.death(when)
	case <-time.After(exitPatience):
		return errors.New("the plugin's process lives but does not answer any more")
	}
}

func joinRequirements(rs []sdk.Requirement) string {
	var out []string
	for _, r := range rs {
		out = append(out, string(r))
	}
	return strings.Join(out, ", ")
}
