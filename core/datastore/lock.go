package datastore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Lock is the right to be the one server on a data directory. The kernel gives it back when
// the process dies, however it dies.
type Lock struct{ file *os.File }

// LockedError says that another process has the data directory.
type LockedError struct {
	// File is the lock's file, PID the process that holds it, 0 if that isn't known.
	File string
	PID  int
}

func (e *LockedError) Error() string {
	holder := "another k3m server"
	if e.PID != 0 {
		holder = fmt.Sprintf("another k3m server (process %d)", e.PID)
	}
	return fmt.Sprintf("%s uses the data directory of %s: stop it first, or choose another --data-dir and --run-dir", holder, e.File)
}

// AcquireLock takes the lock on file, <data-dir>/server/lock, or returns a LockedError at
// once. It is to be taken before anything in the data directory is touched, and held for life.
func AcquireLock(file string) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &LockedError{File: file, PID: readPID(f)}
		}
		return nil, fmt.Errorf("lock data directory: %s: %w", file, err)
	}
	// For LockedError and for people; the lock itself is the kernel's.
	if err := writePID(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	return &Lock{file: f}, nil
}

// Release gives the lock back. The file stays: removing it would let two processes lock two
// files of the same name.
func (l *Lock) Release() error { return l.file.Close() }

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func readPID(f *os.File) int {
	data, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return pid
}
