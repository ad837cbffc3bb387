package flannel

import (
	"bytes"
	"errors"
	"fmt"
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
	if same, err := sameFile(from, to); same || err != nil {
		return err
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
		if err := copyFile(from, fresh); err != nil {
			return err
		}
	}
	return os.Rename(fresh, to)
}

// removeInstalled removes to if it is what installExecutable made of from.
func removeInstalled(from, to string) error {
	same, err := sameFile(from, to)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !same {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(to)
}

// sameFile says whether to is from, or an executable copy of it. Times are no sign: a
// reproducible distribution gives all files the same. A missing to is not the same; a
// missing from is an error.
func sameFile(from, to string) (bool, error) {
	source, err := os.Stat(from)
	if err != nil {
		return false, err
	}
	target, err := os.Lstat(to)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if os.SameFile(source, target) {
		return true, nil
	}
	if target.Mode() != source.Mode() || target.Size() != source.Size() {
		return false, nil
	}
	want, err := os.ReadFile(from)
	if err != nil {
		return false, err
	}
	have, err := os.ReadFile(to)
	return err == nil && bytes.Equal(have, want), err
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, content, 0o755); err != nil {
		return err
	}
	return os.Chmod(to, 0o755) // whatever the umask says
}
