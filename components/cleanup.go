package components

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
)

// Cleanup removes from the host what the selected components have left there: each that
// can (sdk.Cleaner) is started once more, with its usual privileges, to do it. The runtime
// goes first, as its pods use what the others remove; those go in reverse order. No
// Supervisor of the same node may run. One that fails does not keep the others from it;
// the error tells of all. Of Options, StartTimeout and StopTimeout have no effect on how
// long a component may take: ctx has.
func Cleanup(ctx context.Context, o Options) error {
	s := NewSupervisor(o)
	if err := s.makeRoom(ctx); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	var errs []error
	order := slices.Clone(s.components)
	slices.Reverse(order)
	slices.SortStableFunc(order, func(a, b *component) int {
		switch {
		case isRuntime(a.info) == isRuntime(b.info):
			return 0
		case isRuntime(a.info):
			return -1
		}
		return 1
	})
	for _, c := range order {
		if c.info.Has(sdk.AbilityCleanup) {
			if err := c.cleanUp(ctx); err != nil {
				errs = append(errs, fmt.Errorf("clean up after component %s: %w", c.info.ID(), err))
			}
		}
	}
	errs = append(errs, s.removeGroups(), os.RemoveAll(filepath.Join(o.RunDir, "components")))
	return errors.Join(errs...)
}

func (c *component) cleanUp(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.cancel(context.Cause(ctx)) })
	defer stop()
	p, d, err := c.launch(newOutput(c.logger))
	if err != nil {
		return err
	}
	if err := c.identify(p); err != nil {
		return errors.Join(err, p.end(0))
	}
	err = p.Cleanup(c.ctx, client.CleanupRequest{
		Facts: c.facts(), Config: c.config, StateDir: d.state,
	})
	if errors.Is(err, client.ErrGone) {
		err = c.awaitDeath(p, "while it cleaned up")
	}
	return errors.Join(err, p.end(exitPatience))
}
