package datastore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/k3m-io/k3m/core/atomicfile"
)

// Replace puts another database in the place of file, which is moved into a folder beside it with
// all that belongs to it, and returns that folder's path; "" if there was nothing. A crash in
// between leaves no database, which Open refuses, and never one with another's log. The caller holds
// the Lock.
func Replace(file, with string, now time.Time) (replaced string, err error) {
	dir := filepath.Dir(file)
	// Before the file goes: without it, none would look like a new cluster.
	if err := markCluster(file); err != nil {
		return "", err
	}
	// The file first: alone, its log is nothing.
	for _, name := range []string{file, file + "-wal", file + "-shm"} {
		if _, err := os.Lstat(name); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if replaced == "" {
			replaced = filepath.Join(dir, "replaced-"+now.UTC().Format("20060102-150405"))
			if err := os.Mkdir(replaced, 0o700); err != nil {
				return "", fmt.Errorf("keep the old datastore: %w", err)
			}
		}
		if err := os.Rename(name, filepath.Join(replaced, filepath.Base(name))); err != nil {
			return replaced, fmt.Errorf("keep the old datastore: %w", err)
		}
		if err := errors.Join(atomicfile.SyncDir(dir), atomicfile.SyncDir(replaced)); err != nil {
			return replaced, fmt.Errorf("keep the old datastore: %w", err)
		}
	}
	if err := os.Remove(cleanMark(file)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return replaced, err
	}
	if err := os.Rename(with, file); err != nil {
		return replaced, fmt.Errorf("put the datastore in place: %w", err)
	}
	return replaced, atomicfile.SyncDir(dir)
}
