package components

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path of a unix socket, without its final zero (unix(7)).
const maxSocketPath = 107

// socketName is as long as the names that go-plugin gives to sockets: "plugin" and a
// random number of at most ten digits.
const socketName = "/plugin4294967295"

// dirs are a component's own directories.
type dirs struct {
	state string // <data-dir>/components/<id>/state; outlives the process
	run   string // <run-dir>/components/<id>; new for each process
}

// makeDirs makes a component's directories and gives them to its user. The directories
// above can be passed through but not listed, so that a component sees only its own.
func makeDirs(dataDir, runDir, id string, uid int) (dirs, error) {
	d := dirs{
		state: filepath.Join(dataDir, "components", id, "state"),
		run:   filepath.Join(runDir, "components", id),
	}
	if len(d.run)+len(socketName) > maxSocketPath {
		return d, fmt.Errorf("make the directories of component %s: sockets in %s would have paths of more than %d bytes, the most that Linux takes: choose a shorter --run-dir", id, d.run, maxSocketPath)
	}
	// What an earlier process left, sockets above all, is of no use to a new one.
	if err := os.RemoveAll(d.run); err != nil {
		return d, fmt.Errorf("make the directories of component %s: %w", id, err)
	}
	for _, dir := range []string{dataDir, filepath.Join(dataDir, "components"), filepath.Dir(d.state), runDir, filepath.Join(runDir, "components")} {
		if err := makePassable(dir); err != nil {
			return d, fmt.Errorf("make the directories of component %s: %w", id, err)
		}
	}
	for _, dir := range []string{d.state, d.run} {
		if err := makeOwned(dir, uid); err != nil {
			return d, fmt.Errorf("make the directories of component %s: %w", id, err)
		}
	}
	return d, nil
}

// makePassable makes a directory that other users may pass through.
func makePassable(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o111 == 0o111 {
		return nil
	}
	return os.Chmod(dir, st.Mode().Perm()|0o111)
}

// makeOwned makes a directory that is the user's alone. An existing one is changed
// through a descriptor: its content may be the component's, its name is not.
func makeOwned(dir string, uid int) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	if uid >= 0 {
		if err := unix.Fchown(fd, uid, uid); err != nil {
			return &fs.PathError{Op: "chown", Path: dir, Err: err}
		}
	}
	if err := unix.Fchmod(fd, 0o700); err != nil {
		return &fs.PathError{Op: "chmod", Path: dir, Err: err}
	}
	return nil
}
