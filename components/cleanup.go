package components

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
)

// Cleanup asks each component that can to remove from the host what it may have left
// there, while nothing of the node runs: it is called instead of Run. The runtime goes
// first, so that no pod uses what the others remove. A component that fails does not keep
// the others from it; the error joins what failed.
func (s *Supervisor) Cleanup(ctx context.Context) error {
	components := filepath.Join(s.opts.RunDir, "components")
	if err := errors.Join(makePassable(s.opts.RunDir), makePassable(components)); err != nil {
		return fmt.Errorf("clean up components: %w", err)
	}
	if err := s.sweep(ctx); err != nil {
		return fmt.Errorf("end the plugins of an earlier k3m: %w", err)
	}
	reaper, err := startReaper(s.opts.Launcher, filepath.Join(components, "reaper.lock"),
		filepath.Join(components, "reaper.log"), s.opts.Logger)
	if err != nil {
		return fmt.Errorf("clean up components: %w", err)
	}
	s.reaper = reaper
	defer reaper.close()

	inOrder := slices.Clone(s.components)
	slices.SortStableFunc(inOrder, func(a, b *component) int { return boolOrder(isRuntime(b.info)) - boolOrder(isRuntime(a.info)) })
	var errs []error
	for _, c := range inOrder {
		if !slices.Contains(c.info.Abilities, sdk.AbilityCleanup) {
			continue
		}
		if err := c.cleanup(ctx); err != nil {
			errs = append(errs, fmt.Errorf("clean up component %s: %w", c.info.ID(), err))
		}
	}
	return errors.Join(append(errs, s.removeGroups())...)
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

// cleanup starts a process for the one call.
func (c *component) cleanup(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { c.cancel(context.Cause(ctx)) })()
	p, d, err := c.launch(newOutput(c.logger))
	if err != nil {
		return err
	}
	info, err := p.Info(ctx)
	if err == nil {
		err = checkInfo(c.entry, info)
	}
	if err == nil {
		err = p.Cleanup(ctx, client.CleanupRequest{
			Facts: c.sup.facts(), Config: c.sup.opts.Config[c.info.ID()], StateDir: d.state,
		})
	}
	return errors.Join(err, p.end(exitPatience))
}
