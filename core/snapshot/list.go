package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/core/atomicfile"
)

// List is what snapshots there are, the oldest first. Those that can't be used have a Problem.
func List(o Options) ([]Info, error) {
	entries, err := os.ReadDir(o.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	all := []Info{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if ok && CheckName(name) == nil && e.Type().IsRegular() {
			all = append(all, describe(filepath.Join(o.Dir, e.Name())))
		}
	}
	slices.SortStableFunc(all, func(a, b Info) int { return a.Created.Compare(b.Created) })
	return all, nil
}

// Find finds a snapshot by its name, or by the path of its file.
func Find(o Options, which string) (Info, error) {
	file := which
	if !strings.ContainsRune(which, filepath.Separator) {
		name := strings.TrimSuffix(which, suffix)
		if err := CheckName(name); err != nil {
			return Info{}, err
		}
		file = o.file(name)
	}
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return Info{}, fmt.Errorf("%w: %s; `k3m snapshot list` shows those in %s", ErrNotFound, which, o.Dir)
	}
	info := describe(file)
	if info.Problem != "" {
		return info, fmt.Errorf("snapshot %s: %s", which, info.Problem)
	}
	return info, nil
}

// Delete removes a snapshot.
func Delete(o Options, name string) error {
	name = strings.TrimSuffix(name, suffix)
	if err := CheckName(name); err != nil {
		return err
	}
	err := os.Remove(o.file(name))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s; `k3m snapshot list` shows those in %s", ErrNotFound, name, o.Dir)
	}
	if err != nil {
		return fmt.Errorf("delete snapshot: %w", err)
	}
	return atomicfile.SyncDir(o.Dir)
}

// Check reads all of a snapshot and checks the datastore in it.
func Check(ctx context.Context, o Options, which string) (Info, error) {
	info, err := Find(o, which)
	if err != nil {
		return info, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return info, err
	}
	work, err := os.MkdirTemp(o.Dir, partial)
	if err != nil {
		return info, fmt.Errorf("check snapshot: %w", err)
	}
	defer os.RemoveAll(work)
	_, err = unpack(ctx, info, filepath.Join(work, "state.db"))
	return info, err
}

// unpack writes a snapshot's datastore into a new file, checks it, and returns the sealed keys.
func unpack(ctx context.Context, info Info, to string) (bootstrap []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("snapshot %s: %w", info.Name, err)
		}
	}()
	f, err := os.Open(info.File)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := openArchive(f)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if bootstrap, err = r.bootstrap(); err != nil {
		return nil, err
	}
	if err := r.database(to); err != nil {
		return nil, err
	}
	_, err = examine(ctx, to)
	return bootstrap, err
}

// describe reads what a file says of itself.
func describe(file string) Info {
	info := Info{Name: strings.TrimSuffix(filepath.Base(file), suffix), File: file}
	f, err := os.Open(file)
	if err != nil {
		info.Problem = err.Error()
		return info
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		info.Problem = err.Error()
		return info
	}
	info.Bytes = st.Size()
	r, err := openArchive(f)
	if err != nil {
		info.Created, info.Problem = st.ModTime().UTC(), err.Error()
		return info
	}
	defer r.close()
	info.Meta = r.meta
	return info
}
