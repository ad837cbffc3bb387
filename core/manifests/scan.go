package manifests

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxFile is the most bytes of one file; bundles of definitions have some millions.
	maxFile = 16 << 20
	// maxFiles is the most files that are looked at.
	maxFiles = 1000
)

// file is what one file of the folder says.
type file struct {
	// name is its path below the folder.
	name string
	// id is the value of the label that its objects have.
	id      string
	sum     string // of its content
	objects []Object
	// err says why it can't be used; objects are those of before then.
	err error
	// busy files are being written: they are as they were until that has ended.
	busy bool
}

// folder reads the files of a folder again and again, and parses what has changed.
type folder struct {
	root  string
	known map[string]file
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }

// contents are what a folder holds.
type contents struct {
	// files are in the order of their names.
	files []file
	// skips are the names of files that nothing is done for, whether they are there or not.
	skips map[string]bool
	// busy says that a file is being written.
	busy bool
	// problem says that not all was read.
	problem error
}

// scan reads the folder. It fails only when it can't be read at all.
func (f *folder) scan() (c contents, err error) {
	names, problem, err := f.names()
	if err != nil {
		return c, fmt.Errorf("read %s: %w", f.root, err)
	}
	c = contents{skips: map[string]bool{}, problem: problem}
	for _, name := range names {
		if of, ok := strings.CutSuffix(name, ".skip"); ok {
			c.skips[of] = true
		}
	}
	now := map[string]file{}
	for _, name := range names {
		if !isManifest(name) {
			continue
		}
		got := f.read(name)
		c.busy = c.busy || got.busy
		now[name] = got
		c.files = append(c.files, got)
	}
	f.known = now
	return c, nil
}

// errTooMany is a problem of the folder that leaves the files which were read as they are.
var errTooMany = fmt.Errorf("there are more than %d files or %d folders in it: the rest is left out", maxFiles, maxDirs)

// names are the paths of all files below the folder; problem says that there are too many.
func (f *folder) names() (names []string, problem, err error) {
	dirs := 0
	err = filepath.WalkDir(f.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if path != f.root && errors.Is(err, fs.ErrNotExist) { // gone meanwhile
				return nil
			}
			return err
		}
		name, err := filepath.Rel(f.root, path)
		switch {
		case err != nil:
			return err
		case path == f.root:
			return nil
		case e.IsDir() && hidden(e.Name()):
			return fs.SkipDir
		case hidden(e.Name()):
			return nil
		case e.IsDir():
			if dirs++; dirs >= maxDirs {
				problem = errTooMany
				return fs.SkipDir
			}
			return nil
		case len(names) >= maxFiles:
			problem = errTooMany
			return nil
		}
		names = append(names, name)
		return nil
	})
	slices.Sort(names)
	return names, problem, err
}

// isManifest tells by its name whether a file holds objects.
func isManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// idOf is the value of the label of a file's objects: a file's name may be longer than a label.
func idOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:10])
}

// read reads and parses one file, unless it is as it was.
func (f *folder) read(name string) file {
	before, known := f.known[name]
	out := file{name: name, id: idOf(name)}
	text, busy, err := readWhole(filepath.Join(f.root, name))
	if busy {
		if known {
			out = before
		}
		out.busy = true
		return out
	}
	if err != nil {
		out.objects, out.err = before.objects, fmt.Errorf("%s: %w", name, err)
		return out
	}
	sum := sha256.Sum256(text)
	out.sum = hex.EncodeToString(sum[:])
	if known && before.sum == out.sum && !before.busy {
		out.objects, out.err = before.objects, before.err
		return out
	}
	if out.objects, out.err = Parse(name, text); out.err != nil {
		out.objects = before.objects // what is applied is kept as it was
	}
	return out
}

// readWhole reads a regular file, also by a symbolic link, unless somebody is writing it.
func readWhole(path string) (text []byte, busy bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not keep us
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, false, err
	case !info.Mode().IsRegular():
		return nil, false, errors.New("it is no regular file")
	case info.Size() > maxFile:
		return nil, false, fmt.Errorf("it is larger than %d MiB: split it", maxFile>>20)
	}
	if beingWritten(f) {
		return nil, true, nil
	}
	text, err = io.ReadAll(io.LimitReader(f, maxFile))
	return text, false, err
}

// beingWritten tells whether another process has the file open for writing: the kernel
// grants a read lease only when none has. A file system without leases says no.
func beingWritten(f *os.File) bool {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	// Held no longer than that: a writer would have to wait for it.
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return false
}
