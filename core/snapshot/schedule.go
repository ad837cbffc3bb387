package snapshot

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/k3m-io/k3m/core/health"
)

// healthPart is what scheduled snapshots are called on the health board, where they are while they
// fail.
const healthPart = "snapshots"

// Schedule makes snapshots at the times of a crontab's schedule, in local time.
type Schedule struct {
	Options
	// Spec is the schedule: five fields, or @daily and its like.
	Spec string
	// Retention is how many scheduled snapshots of this node are kept.
	Retention int
	// Save makes one, with Save of this package in the end.
	Save func(ctx context.Context, reason string) (Info, error)

	Health *health.Board
	Logger *slog.Logger
}

// retryAfter is the time until a failed snapshot is tried again, unless the schedule is faster.
const retryAfter = 10 * time.Minute

// Run works until ctx ends. A time that passed while the server did not run is made up for: a node
// that is switched off at night has snapshots too.
func (s Schedule) Run(ctx context.Context) error {
	times, err := cron.ParseStandard(s.Spec)
	if err != nil {
		return fmt.Errorf("read the schedule of snapshots: %w", err)
	}
	last := s.last()
	for {
		next := times.Next(last)
		if s.failing() {
			next = time.Now().Add(retryAfter)
			if soon := times.Next(time.Now()); soon.Before(next) {
				next = soon
			}
		}
		timer := time.NewTimer(time.Until(next)) // the schedule is of the clock's time: there is no event to wait for
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		s.once(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was asked to
		}
		last = time.Now()
	}
}

// last is when the last scheduled snapshot was made, or else when the first might be due.
func (s Schedule) last() time.Time {
	all, err := List(s.Options)
	if err != nil {
		s.Logger.Warn("snapshots can't be listed", "error", err)
	}
	last := time.Time{}
	for _, info := range s.mine(all) {
		last = info.Created
	}
	if now := time.Now(); last.IsZero() || last.After(now) { // none yet, or the clock was wrong
		return now
	}
	return last.Local()
}

// mine are the scheduled snapshots of this node that can be used.
func (s Schedule) mine(all []Info) []Info {
	var out []Info
	for _, info := range all {
		if info.Problem == "" && info.Reason == Scheduled && info.Node == s.Node {
			out = append(out, info)
		}
	}
	return out
}

// failing tells whether the last one failed.
func (s Schedule) failing() bool {
	if s.Health == nil {
		return false
	}
	for _, c := range s.Health.Conditions() {
		if c.Part == healthPart {
			return true
		}
	}
	return false
}

// once makes a snapshot and removes those that are too many. The old ones stay when it fails.
func (s Schedule) once(ctx context.Context) {
	err := func() error {
		info, err := s.Save(ctx, Scheduled)
		if err != nil {
			return err
		}
		s.Logger.Info("snapshot saved", "name", info.Name, "bytes", info.Bytes)
		all, err := List(s.Options)
		if err != nil {
			return err
		}
		mine := s.mine(all)
		for _, old := range mine[:max(0, len(mine)-s.Retention)] {
			if err := Delete(s.Options, old.Name); err != nil {
				return err
			}
		}
		return nil
	}()
	switch {
	case err == nil:
		s.Health.Remove(healthPart)
	case ctx.Err() == nil:
		s.Logger.Warn("the scheduled snapshot failed", "error", err)
		s.Health.Set(health.Condition{
			Part: healthPart, State: health.Degraded, Message: "the scheduled one failed: " + err.Error(),
			Fix: "mend what the message names; it is tried again within " + strconv.Itoa(int(retryAfter.Minutes())) + " minutes, or with `k3m snapshot save`",
		})
	}
}
