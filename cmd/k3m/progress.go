package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/k3m-io/k3m/cmd/internal/bootscreen"
	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/health"
)

// bootTerminal is the terminal on which the start is shown, or nil where the log's lines alone
// tell: standard error is none, or whoever reads it wants JSON.
func bootTerminal(cfg *config.Config, out *os.File) *bootscreen.Screen {
	fd := int(out.Fd())
	if cfg.LogFormat != "text" || os.Getenv("TERM") == "dumb" || !term.IsTerminal(fd) {
		return nil
	}
	return bootscreen.New(out, func() (columns, rows int) {
		columns, rows, err := term.GetSize(fd)
		if err != nil || columns == 0 || rows == 0 {
			return 80, 24
		}
		return columns, rows
	})
}

// logWriter is where the log's lines go.
func logWriter(screen *bootscreen.Screen, out io.Writer) io.Writer {
	if screen == nil {
		return out
	}
	return screen
}

// showProgress tells a terminal and the service manager how far the server is, and later whether
// all is well, at each change until ctx ends.
func (s *server) showProgress(ctx context.Context) error {
	if s.screen == nil && !s.notifier.heard() {
		<-ctx.Done()
		return nil
	}
	changes := s.components.Watch(ctx)
	said := ""
	for {
		parts := s.health.Changed()
		for drained := false; !drained; {
			select {
			case _, open := <-changes:
				drained = !open
			default:
				drained = true
			}
		}
		report := s.report()
		if s.screen != nil {
			s.screen.Show(bootSteps(report))
		}
		if line := statusLine(report); line != said && ctx.Err() == nil {
			s.notifier.tell("STATUS=" + line)
			said = line
		}
		select {
		case <-changes:
		case <-parts:
		case <-ctx.Done():
			return nil
		}
	}
}

// closeScreen leaves the last word on the terminal, before others write there.
func (s *server) closeScreen() {
	if s.screen != nil {
		s.screen.Show(bootSteps(s.report()))
		s.screen.Close()
	}
}

// bootSteps are the parts and components of a report as steps of a start.
func bootSteps(r nodeReport) []bootscreen.Step {
	var steps []bootscreen.Step
	add := func(name string, state bootscreen.State, since time.Time, message string) {
		step := bootscreen.Step{Name: name, State: state, Message: message}
		if state == bootscreen.Done {
			step.Message, step.After = "", since.Sub(r.Started)
		}
		steps = append(steps, step)
	}
	for _, c := range r.Parts {
		state := map[health.State]bootscreen.State{
			health.Waiting: bootscreen.Waiting, health.Working: bootscreen.Working, health.OK: bootscreen.Done,
		}
		now, ok := state[c.State]
		if !ok {
			now = bootscreen.Failed
		}
		add(c.Part, now, c.Since, c.Message)
	}
	for _, c := range r.Components {
		message := c.Reason
		switch c.State {
		case components.Ready:
			add(c.ID, bootscreen.Done, c.Since, "")
		case components.Waiting:
			add(c.ID, bootscreen.Waiting, c.Since, message)
		case components.Launching, components.Starting:
			if message == "" {
				message = "starts"
			}
			add(c.ID, bootscreen.Working, c.Since, message)
		default:
			if message == "" {
				message = c.LastError
			}
			add(c.ID, bootscreen.Failed, c.Since, string(c.State)+": "+message)
		}
	}
	return steps
}

// statusLine is a report in one line: what `systemctl status` shows.
func statusLine(r nodeReport) string {
	all := len(r.Parts) + len(r.Components)
	if r.Well {
		return fmt.Sprintf("node %s: all well, %d components", r.Node, len(r.Components))
	}
	first := r.Problems[0]
	return fmt.Sprintf("node %s: %d of %d are well; %s: %s", r.Node, all-len(r.Problems), all, first.What, oneSentence(first.Why))
}
