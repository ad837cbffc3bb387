package components

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// maxPluginSize bounds an installed executable.
	maxPluginSize int64 = 2 << 30
	// installLock is locked while the installed plugins change. It stays, and is root's
	// alone: who can open a file can lock it.
	installLock = "install.lock"
)

// InstallRequest says what to install where.
type InstallRequest struct {
	Inspector Inspector
	// Path is the plugin's executable; Args are what it is to be called with.
	Path string
	Args []string
	// BundleDir and DataDir are those of the node.
	BundleDir, DataDir string
	// Confirm is shown what was found (see Describe) before anything is kept. An error is
	// the operator's no.
	Confirm func(Entry) error
}

// Install copies a plugin to <data-dir>/plugins/<id>, asks the copy who it is, and, if
// the operator agrees, records it in plugins.lock. A plugin of the same ID that was
// installed before is replaced. A running node notices at its next start.
func Install(ctx context.Context, r InstallRequest) (Entry, error) {
	dir := filepath.Join(r.DataDir, "plugins")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Entry{}, fmt.Errorf("install plugin: %w", err)
	}
	if _, err := checkTrusted(dir); err != nil {
		return Entry{}, fmt.Errorf("install plugin: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return Entry{}, fmt.Errorf("install plugin: %w", err)
	}
	defer unlock()
	// The copy is inspected, so that what was shown is what is kept.
	copied, err := copyExecutable(r.Path, dir)
	if err != nil {
		return Entry{}, fmt.Errorf("install plugin: %w", err)
	}
	defer os.Remove(copied) // gone already when all went well
	e, err := r.Inspector.Inspect(ctx, copied, r.Args...)
	if err != nil {
		return Entry{}, err
	}
	catalog, err := Discover(r.BundleDir, r.DataDir)
	if err != nil {
		return Entry{}, fmt.Errorf("install plugin: %w", err)
	}
	if other, taken := catalog.Find(e.ID()); taken && !other.Installed() {
		return Entry{}, fmt.Errorf("install plugin: the distribution has a component %s of its own: give yours another name", e.ID())
	}
	e.root, e.installed, e.Path = dir, true, e.ID()
	if err := r.Confirm(e); err != nil {
		return Entry{}, fmt.Errorf("install plugin %s: %w", e.ID(), err)
	}
	if err := os.Rename(copied, e.Executable()); err != nil {
		return Entry{}, fmt.Errorf("install plugin %s: %w", e.ID(), err)
	}
	err = rewriteLock(dir, func(entries []Entry) []Entry {
		return append(slices.DeleteFunc(entries, func(o Entry) bool { return o.ID() == e.ID() }), e)
	})
	if err != nil {
		return Entry{}, fmt.Errorf("install plugin %s: %w", e.ID(), err)
	}
	return e, nil
}

// ErrNotInstalled means that no plugin of the ID is installed.
var ErrNotInstalled = errors.New("it is not an installed plugin")

// Remove removes an installed plugin. Its state directory stays.
func Remove(dataDir, id string) error {
	dir := filepath.Join(dataDir, "plugins")
	unlock, err := lockDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove plugin %s: %w", id, ErrNotInstalled)
	}
	if err != nil {
		return fmt.Errorf("remove plugin %s: %w", id, err)
	}
	defer unlock()
	path := ""
	err = rewriteLock(dir, func(entries []Entry) []Entry {
		return slices.DeleteFunc(entries, func(o Entry) bool {
			if o.ID() == id {
				path = o.Path
			}
			return o.ID() == id
		})
	})
	if err == nil && path == "" {
		err = fmt.Errorf("%w: %s lists those that are", ErrNotInstalled, filepath.Join(dir, LockFile))
	}
	if err == nil {
		err = os.Remove(filepath.Join(dir, path))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove plugin %s: %w", id, err)
	}
	return nil
}

func rewriteLock(dir string, edit func([]Entry) []Entry) error {
	path := filepath.Join(dir, LockFile)
	entries, err := readRecord(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := EncodeRecord(edit(entries))
	if err != nil {
		return err
	}
	return writeFileAtomic(path, data, 0o600)
}

// copyExecutable copies a file into dir under a name of its own.
func copyExecutable(from, dir string) (path string, err error) {
	src, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", from)
	}
	if st.Size() > maxPluginSize {
		return "", fmt.Errorf("%s has %d bytes; at most %d are allowed", from, st.Size(), maxPluginSize)
	}
	dst, err := os.CreateTemp(dir, ".install-*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(dst, io.LimitReader(src, maxPluginSize))
	if err := errors.Join(err, dst.Chmod(0o755), dst.Sync(), dst.Close()); err != nil {
		os.Remove(dst.Name())
		return "", err
	}
	return dst.Name(), nil
}

// lockDir keeps others from changing the installed plugins in dir meanwhile.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, installLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return func() { f.Close() }, nil
}
