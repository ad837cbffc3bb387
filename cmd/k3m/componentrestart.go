package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/k3m-io/k3m/components"
)

func componentRestartCommand() *cobra.Command {
	var n node
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "restart COMPONENT...",
		Short: "Restart components and wait until they are ready again",
		Long: `Stop the process of each component, start it anew, and wait until it is ready again. No
other component is touched, nor any pod. A refused component is looked at again; one that
is being started, or waits for something, is only waited for.

The exit code is 0 when all are ready, else 1.`,
		Example: `  sudo k3m component restart dns
  sudo k3m component restart --timeout 2m flannel containerd`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n.resolve()
			start := time.Now()
			statuses, err := componentStatuses(cmd.Context(), n)
			if err != nil {
				return err
			}
			var ids, chosen []string
			for _, s := range statuses {
				ids = append(ids, s.ID)
			}
			for _, word := range args {
				id, err := resolveEnabled(n, word, ids)
				if err != nil {
					return err
				}
				if !slices.Contains(chosen, id) {
					chosen = append(chosen, id)
				}
			}
			before := map[string]int{}
			for _, id := range chosen {
				var answer restartAnswer
				if err := callAdmin(cmd.Context(), n.runDir, http.MethodPost, componentPath(id, "restart"), &answer); err != nil {
					return err
				}
				before[id] = answer.Restarts - 1
			}
			w := readiness{restarts: before, told: func(s components.ComponentStatus, after time.Duration) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is ready again after %s\n", s.ID, after.Round(10*time.Millisecond))
			}}
			w.start = start
			return w.await(cmd.Context(), n, timeout, chosen)
		},
	}
	addNodeFlags(c, &n)
	addTimeoutFlag(c, &timeout)
	return c
}

func addTimeoutFlag(c *cobra.Command, timeout *time.Duration) {
	*timeout = time.Minute
	c.Flags().Var((*positiveDuration)(timeout), "timeout", "how long to wait until what was started is ready")
}

// positiveDuration is a flag's value that a duration of nothing or less is refused for.
type positiveDuration time.Duration

func (d *positiveDuration) String() string { return time.Duration(*d).String() }

// Type is what a flag's help calls it.
func (d *positiveDuration) Type() string { return "duration" }

// Set reads the flag's text.
func (d *positiveDuration) Set(text string) error {
	value, err := time.ParseDuration(text)
	if err != nil {
		return err
	}
	if value <= 0 {
		return errors.New("give more than 0s")
	}
	*d = positiveDuration(value)
	return nil
}

// readiness waits until components that were told to start (again) are ready.
type readiness struct {
	// start is when they were told.
	start time.Time
	// restarts counts those before, of components that ran: one that says Ready with no more
	// than that is the process of before.
	restarts map[string]int
	// told is called for each that is ready.
	told func(s components.ComponentStatus, after time.Duration)
}

// await follows the components until all are ready, or one can't be without somebody's help.
func (r readiness) await(ctx context.Context, n node, timeout time.Duration, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	late := fmt.Errorf("not ready within %s", timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, late)
	defer cancel()
	missing, last := slices.Clone(ids), map[string]components.ComponentStatus{}
	var failed []error
	drop := func(id string) { missing = slices.DeleteFunc(missing, func(m string) bool { return m == id }) }
	err := followAdmin(ctx, n.runDir, componentsWatchPath, func(s components.ComponentStatus) bool {
		before, ran := r.restarts[s.ID]
		if !slices.Contains(missing, s.ID) || ran && s.Restarts <= before {
			return true
		}
		last[s.ID] = s
		switch s.State {
		case components.Ready:
			r.told(s, time.Since(r.start))
			drop(s.ID)
		case components.Refused, components.CrashLoop, components.Removed:
			failed = append(failed, notReady(s.ID, s))
			drop(s.ID)
		}
		return len(missing) > 0
	})
	if errors.Is(err, late) {
		err = nil
		for _, id := range missing {
			failed = append(failed, fmt.Errorf("%s passed: %w", timeout, notReady(id, last[id])))
		}
	}
	return errors.Join(append(failed, err)...)
}

func notReady(id string, s components.ComponentStatus) error {
	why := s.Reason
	if s.LastError != "" && !strings.Contains(why, s.LastError) {
		why = strings.TrimPrefix(why+"; last error: "+s.LastError, "; ")
	}
	if s.State == "" {
		return fmt.Errorf("component %s is not ready", id)
	}
	return fmt.Errorf("component %s is not ready (%s); `k3m component logs %s` tells more", id, strings.TrimSuffix(string(s.State)+": "+why, ": "), id)
}
