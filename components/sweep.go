package components

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/k3m-io/k3m/components/cgroup"
)

// cutID splits an ID into kind and name; false if it is none of this k3m's kinds.
func cutID(id string) (kind, name string, ok bool) {
	kind, name, ok = strings.Cut(id, ".")
	_, known := KindNamed(kind)
	return kind, name, ok && known && name != ""
}

// sweep ends what an earlier core left running, if its reaper has not yet: its plugins'
// sockets, ports and locks would be in the way. Only groups that bear a component's ID
// are touched: the shims' and the pods' groups may be beside them.
func (s *Supervisor) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	groups, err := s.groups()
	if err != nil {
		return err
	}
	var errs []error
	for _, g := range groups {
		// The group itself is the earlier reaper's to remove, or the next launch's to use.
		errs = append(errs, g.Kill(ctx))
	}
	return errors.Join(errs...)
}

// groups lists the groups of components below the parent.
func (s *Supervisor) groups() ([]cgroup.Group, error) {
	if s.opts.CgroupParent == "" {
		return nil, nil
	}
	parent, err := groupOf(s.opts.CgroupParent, "")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var groups []cgroup.Group
	for _, dir := range parent {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if _, _, ok := cutID(e.Name()); !ok || !e.IsDir() || seen[e.Name()] {
				continue
			}
			seen[e.Name()] = true
			g, err := groupOf(s.opts.CgroupParent, e.Name())
			if err != nil {
				return nil, err
			}
			groups = append(groups, g)
		}
	}
	return groups, nil
}

// removeGroups removes the components' empty groups, and the parent if nothing else is in
// it.
func (s *Supervisor) removeGroups() error {
	groups, err := s.groups()
	if err != nil {
		return fmt.Errorf("remove cgroups: %w", err)
	}
	var errs []error
	for _, g := range groups {
		errs = append(errs, g.Remove())
	}
	if s.opts.CgroupParent != "" && filepath.Clean(s.opts.CgroupParent) != "/" {
		some, err := groupOf(s.opts.CgroupParent, "some")
		errs = append(errs, err)
		removeParents(some)
	}
	return errors.Join(errs...)
}

// removeParents removes the directories above a group, unless something else is in them:
// pods, shims, other components.
func removeParents(g cgroup.Group) {
	for _, dir := range g {
		_ = os.Remove(filepath.Dir(dir))
	}
}
