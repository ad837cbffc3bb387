// Package atomicfile writes files that are either old or new, never half of either: to a
// temporary file in the same directory, to the disk, and then by rename. It is for keys,
// tokens and kubeconfigs, which a power cut must not leave empty.
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write puts data into path with the mode given, whatever the umask, and makes the directory
// (0700) when it is missing. Another file of that name is replaced; a symbolic link is
// replaced and not followed.
func Write(path string, data []byte, mode os.FileMode) error { return write(path, data, mode, -1) }

// WriteFor is Write for a file of a group, by its number.
func WriteFor(path string, data []byte, mode os.FileMode, gid int) error {
	if os.Geteuid() != 0 && gid == 0 {
		gid = -1 // tests of users that are not root
	}
	return write(path, data, mode, gid)
}

func write(path string, data []byte, mode os.FileMode, gid int) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-") // 0600 until it is complete
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := fill(f, data, mode, gid); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// fill writes, syncs and closes f.
func fill(f *os.File, data []byte, mode os.FileMode, gid int) error {
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if gid >= 0 {
		if err := f.Chown(-1, gid); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// SyncDir makes renames within dir survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
