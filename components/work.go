package components

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/k3m-io/k3m/sdk/client"
)

// run calls the component's Run and follows it until it has ended, the process has died,
// or the component is to stop or to start anew.
func (c *component) run(p *process, r client.RunRequest) (ready time.Duration, err error) {
	if c.superseded() { // while this very process was being started
		return 0, errors.Join(p.end(0), errRestart)
	}
	var readySince time.Time
	var runErr error
	reports := newReports(c.report)
	c.works(p)
	defer c.works(nil)
	defer reports.end()
	ended := make(chan struct{}) // closed when runErr is set
	runCtx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer close(ended)
		runErr = p.Run(runCtx, r, func(report client.Report) {
			reports.add(report)
			if _, ok := report.(client.Ready); ok && readySince.IsZero() {
				readySince = time.Now()
			}
		})
	}()
	slow := time.AfterFunc(slowStart, func() {
		c.sup.mu.Lock()
		defer c.sup.mu.Unlock()
		if c.status.State == Starting && c.status.Reason == "" {
			c.set(Starting, fmt.Sprintf("not ready after %s", slowStart), nil)
		}
	})
	defer slow.Stop()

	pulseCtx, stopPulse := context.WithCancel(context.Background())
	silent, pulseEnded := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(pulseEnded)
		if err := p.pulse(pulseCtx, c.sup.pulse); err != nil {
			silent <- err
		}
	}()
	defer func() { stopPulse(); <-pulseEnded }()

	var deadline time.Time
	restart := false
	select {
	case err := <-silent:
		err = errors.Join(err, p.end(0))
		<-ended
		return readyFor(readySince), err
	case <-ended:
		err := c.runError(p, runErr)
		return readyFor(readySince), errors.Join(err, p.end(0))
	case <-c.restart:
		restart, deadline = true, time.Now().Add(c.sup.opts.StopTimeout)
	case <-c.ctx.Done():
		deadline = c.deadline
	}
	reports.end()
	c.enter(Stopping, "")
	stopCtx, cancelStop := context.WithDeadlineCause(context.Background(), deadline, errors.New("it did not stop in time, and was killed"))
	defer cancelStop()
	err = p.stop(stopCtx)
	<-ended
	if restart && c.ctx.Err() == nil {
		if err != nil {
			c.logger.Warn("stopped with an error", "error", err)
		}
		return 0, errRestart
	}
	return 0, err
}

func readyFor(since time.Time) time.Duration {
	if since.IsZero() {
		return 0
	}
	return time.Since(since)
}

// runError says why Run ended although nobody asked it to.
func (c *component) runError(p *process, err error) error {
	switch {
	case err == nil:
		return errors.New("the component ended although nobody asked it to")
	case errors.Is(err, client.ErrGone):
		return c.awaitDeath(p, "at work")
	}
	return err
}

// report takes what a running component says.
func (c *component) report(r client.Report) {
	switch r := r.(type) {
	case client.Ready:
		c.enter(Ready, "")
	case client.Degraded:
		c.change(c.degradedState(), r.Reason, nil)
		c.logger.Warn("degraded", "reason", r.Reason)
	case client.RuntimeReady:
		if !c.may("runtime", "a runtime endpoint") {
			return
		}
		c.sup.mu.Lock()
		c.sup.endpoint = r.Endpoint
		c.sup.broadcast()
		c.sup.mu.Unlock()
	case client.NetworkReady:
		if !c.may("cni", "a pod network") {
			return
		}
		c.sup.mu.Lock()
		c.sup.gateways = r.Gateways
		c.sup.broadcast()
		c.sup.mu.Unlock()
	case client.Serving:
		c.serve(r.Endpoints)
	case client.Owning:
		c.own(r.Objects)
	}
}

// degradedState: a component that has not been ready yet is still starting.
func (c *component) degradedState() State {
	c.sup.mu.Lock()
	defer c.sup.mu.Unlock()
	if c.status.State.serving() {
		return Degraded
	}
	return Starting
}

func (c *component) may(kind, what string) bool {
	if c.info.Kind != kind {
		c.logger.Warn(fmt.Sprintf("reports %s, which is for components of kind %s alone; ignored", what, kind))
	}
	return c.info.Kind == kind
}

// enter changes the state; change changes it with a reason and more; set does so with the
// supervisor's lock held, and wakes nobody if nothing changed.
func (c *component) enter(state State, reason string) { c.change(state, reason, nil) }

func (c *component) change(state State, reason string, more func(*ComponentStatus)) {
	c.sup.mu.Lock()
	defer c.sup.mu.Unlock()
	c.set(state, reason, more)
}

func (c *component) set(state State, reason string, more func(*ComponentStatus)) {
	st, reason := &c.status, oneLine(reason)
	if st.State == state && st.Reason == reason && more == nil {
		return
	}
	if st.State != state {
		st.Since = time.Now()
	}
	st.State, st.Reason, st.NextStart = state, reason, time.Time{}
	c.serveAs(state)
	if more != nil {
		more(st)
	}
	c.sup.publish(*st)
}

func (c *component) update(f func(*ComponentStatus)) {
	c.sup.mu.Lock()
	defer c.sup.mu.Unlock()
	f(&c.status)
}

func (c *component) fail(err error) {
	c.update(func(st *ComponentStatus) {
		st.LastError, st.LastErrorTime = oneLine(err.Error()), time.Now()
	})
}

// oneLine joins the lines of joined errors.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

// ownSession keeps signals of the core's terminal from the plugin.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
