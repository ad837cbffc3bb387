package flannel

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// executables are the CNI plugins that conflist.go names, and loopback, which runtimes
// call by themselves.
var executables = []string{"bandwidth", "bridge", "host-local", "loopback", "portmap"}

// installExecutables puts the carried CNI executables where the runtime looks for them.
// Each appears at once and whole; one that is there already is left alone, and so is
// what else is in that directory.
func installExecutables(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("make the directory of CNI executables: %w", err)
	}
	for _, name := range executables {
		if err := installExecutable(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return fmt.Errorf("install CNI executable %s: %w", name, err)
		}
	}
	return nil
}

func installExecutable(from, to string) error {
	source, err := os.Stat(from)
	if err != nil {
		return err
	}
	target, err := os.Lstat(to)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case os.SameFile(source, target):
		return nil
	case target.Mode() == source.Mode() && target.Size() == source.Size() && target.ModTime().Equal(source.ModTime()):
		return nil // an earlier copy: copies keep the time
	}
	temporary, err := os.MkdirTemp(filepath.Dir(to), ".install-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	fresh := filepath.Join(temporary, filepath.Base(to))
	// A link costs no space; it is refused across file systems, and by the kernel for
	// a file of another user (fs.protected_hardlinks).
	if os.Link(from, fresh) != nil {
		if err := copyFile(from, fresh, source); err != nil {
			return err
		}
	}
	return os.Rename(fresh, to)
}

func copyFile(from, to string, like fs.FileInfo) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, like.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(like.Mode().Perm()), out.Close())
	if err != nil {
		return err
	}
	return os.Chtimes(to, like.ModTime(), like.ModTime())
}
