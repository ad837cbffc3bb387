package components

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Builtin is a plugin that a distribution is built with.
type Builtin struct {
	// Path is the executable's, relative to the bundle.
	Path string
	// Args are what it is called with.
	Args []string
	// Default makes it its kind's default.
	Default bool
}

// BakeCatalog asks the plugins of a distribution that is being built who they are, and
// writes <bundle>/plugins/catalog.json: what they say now, they must say at every launch.
func BakeCatalog(ctx context.Context, i Inspector, bundleDir string, plugins ...Builtin) error {
	i.Own = true
	var entries []Entry
	for _, p := range plugins {
		e, err := i.Inspect(ctx, filepath.Join(bundleDir, p.Path), p.Args...)
		if err != nil {
			return fmt.Errorf("bake catalog: %w", err)
		}
		e.Path, e.Default = p.Path, p.Default
		for _, other := range entries {
			if other.ID() == e.ID() {
				return fmt.Errorf("bake catalog: %s and %s are both %s", other.Path, e.Path, e.ID())
			}
		}
		entries = append(entries, e)
	}
	data, err := EncodeRecord(entries)
	if err != nil {
		return fmt.Errorf("bake catalog: %w", err)
	}
	dir := filepath.Join(bundleDir, "plugins")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("bake catalog: %w", err)
	}
	return writeFileAtomic(filepath.Join(dir, CatalogFile), data, 0o644)
}
