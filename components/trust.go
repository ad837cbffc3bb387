package components

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links a path may lead through, as in the kernel.
const maxLinks = 40

// checkTrusted returns the real path of a file if no other user than root and the caller
// could have put something else there: the file, each directory above it and each
// directory above the targets of symbolic links belong to one of them and can't be
// written by others. A directory with the sticky bit (/tmp) will do for what belongs to
// them in it.
func checkTrusted(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("check %s: %w", path, err)
	}
	rest, real, links := strings.Split(path, "/")[1:], "/", 0
	if err := checkOwner(real); err != nil {
		return "", err
	}
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..": // of a link's target
			real = filepath.Dir(real)
			continue
		}
		next := filepath.Join(real, name)
		st, err := os.Lstat(next)
		if err != nil {
			return "", fmt.Errorf("check %s: %w", path, err)
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			if links++; links > maxLinks {
				return "", fmt.Errorf("check %s: too many symbolic links", path)
			}
			if err := checkLinkOwner(next, st); err != nil {
				return "", err
			}
			target, err := os.Readlink(next)
			if err != nil {
				return "", fmt.Errorf("check %s: %w", path, err)
			}
			if filepath.IsAbs(target) {
				real = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		}
		if err := checkOwner(next); err != nil {
			return "", err
		}
		real = next
	}
	return real, nil
}

func checkOwner(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("check who may write %s: %w", path, err)
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	what := "file"
	if st.IsDir() {
		what = "directory"
	}
	if owner != 0 && int(owner) != os.Geteuid() {
		return &untrusted{Path: path, Why: fmt.Sprintf("the %s %s belongs to user %d", what, path, owner),
			Do: "chown root:root " + path}
	}
	if st.Mode().Perm()&0o022 != 0 && (!st.IsDir() || st.Mode()&fs.ModeSticky == 0) {
		return &untrusted{Path: path, Why: fmt.Sprintf("the %s %s can be written by other users (mode %04o)", what, path, st.Mode().Perm()),
			Do: "chmod go-w " + path}
	}
	return nil
}

// checkLinkOwner: in a directory with the sticky bit the owner of a link may change it.
func checkLinkOwner(path string, st fs.FileInfo) error {
	if owner := st.Sys().(*syscall.Stat_t).Uid; owner != 0 && int(owner) != os.Geteuid() {
		return &untrusted{Path: path, Why: fmt.Sprintf("the symbolic link %s belongs to user %d", path, owner), Do: "rm " + path}
	}
	return nil
}

// untrusted says that others could change what would be executed.
type untrusted struct{ Path, Why, Do string }

func (e *untrusted) Error() string {
	return fmt.Sprintf("%s, so what is in it can't be trusted: make sure that it is what you installed, then `%s`", e.Why, e.Do)
}
