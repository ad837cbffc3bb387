package manifests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// treeWatch says that something in a folder, or in those below it, has changed. It uses inotify
// itself because the portable library has no event for "closed after writing": half a file must not be
// taken for a whole one. All folders share one inotify instance, of which a user has few.
type treeWatch struct {
	f    *os.File
	root string
	dirs map[int32]string // by watch descriptor
}

const (
	treeEvents = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_CREATE | unix.IN_DELETE |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	// maxDirs bounds the folders that are watched, and read.
	maxDirs = 200
)

// errRootGone says that the watched folder itself was removed or renamed.
var errRootGone = errors.New("the folder is gone")

// newTreeWatch begins to watch what is there, and reports what changes from now on.
func newTreeWatch(root string) (*treeWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", root, err)
	}
	w := &treeWatch{f: os.NewFile(uintptr(fd), "inotify"), root: root, dirs: map[int32]string{}}
	if err := w.add(root); err != nil {
		w.Close()
		return nil, fmt.Errorf("watch %s: %w", root, err)
	}
	return w, nil
}

// add watches a folder and those below it. Hidden ones are left out, as scan leaves them out.
func (w *treeWatch) add(top string) error {
	return filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != top: // gone meanwhile
			return nil
		case err != nil:
			return err
		case !e.IsDir():
			return nil
		case path != top && hidden(e.Name()) || len(w.dirs) >= maxDirs:
			return fs.SkipDir
		}
		wd, err := unix.InotifyAddWatch(int(w.f.Fd()), path, treeEvents)
		if errors.Is(err, unix.ENOENT) && path != top {
			return nil
		}
		if err != nil {
			return err
		}
		w.dirs[int32(wd)] = path
		return nil
	})
}

// next waits for a change. It returns os.ErrClosed after Close.
func (w *treeWatch) next() error {
	var buf [64 * (unix.SizeofInotifyEvent + unix.NAME_MAX + 1)]byte
	n, err := w.f.Read(buf[:])
	if err != nil {
		return err
	}
	return w.take(buf[:n])
}

// take reads the kernel's records, inotify(7), and follows new folders.
func (w *treeWatch) take(raw []byte) error {
	for len(raw) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(raw[0:]))
		mask := binary.NativeEndian.Uint32(raw[4:])
		size := int(binary.NativeEndian.Uint32(raw[12:]))
		raw = raw[unix.SizeofInotifyEvent:]
		if size > len(raw) {
			break
		}
		name := raw[:size]
		for len(name) > 0 && name[len(name)-1] == 0 {
			name = name[:len(name)-1]
		}
		raw = raw[size:]
		dir, known := w.dirs[wd]
		switch {
		case mask&unix.IN_IGNORED != 0:
			delete(w.dirs, wd)
		case mask&unix.IN_Q_OVERFLOW != 0:
			return errRootGone // what was lost is found by a new watch
		case dir == w.root && mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF) != 0:
			return errRootGone
		case known && mask&unix.IN_ISDIR != 0 && mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 && !hidden(string(name)):
			if err := w.add(filepath.Join(dir, string(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Close ends the watch; a waiting next returns.
func (w *treeWatch) Close() error { return w.f.Close() }
