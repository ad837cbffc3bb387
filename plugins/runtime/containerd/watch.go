package containerd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// watch reports files of one directory when they are complete, and when they are gone. It uses inotify itself
// because the portable library that is there has no event for "closed after writing",
// and a copy must not be read before it ends.
type watch struct {
	f *os.File
}

// arrival is what a watch saw.
type arrival struct {
	// name is the file's. Empty when events were lost: then any file may have arrived.
	name string
	// linked says that the name was made: a link to a file that is complete elsewhere,
	// or a new file, whose end of writing is another arrival.
	linked bool
	// closed says that a writer closed it. The kernel tells so a moment before it stops
	// counting the writer, so that beingWritten may be wrong then.
	closed bool
	// removed says that the name is gone.
	removed bool
	// dir says that it is that of a directory.
	dir bool
}

// errDirectoryGone says that the watched directory was removed or renamed.
var errDirectoryGone = errors.New("the directory is gone")

// newWatch begins to watch dir: what arrives from now on is reported by next.
func newWatch(dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	const events = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_CREATE |
		unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, events); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	return &watch{f: os.NewFile(uintptr(fd), "inotify")}, nil
}

// next waits for arrivals. It returns os.ErrClosed after Close.
func (w *watch) next() ([]arrival, error) {
	var buf [64 * (unix.SizeofInotifyEvent + unix.NAME_MAX + 1)]byte
	n, err := w.f.Read(buf[:])
	if err != nil {
		return nil, err
	}
	return parseEvents(buf[:n])
}

// Close ends the watch; a waiting next returns.
func (w *watch) Close() error { return w.f.Close() }

// parseEvents reads the kernel's records. See inotify(7).
func parseEvents(raw []byte) ([]arrival, error) {
	var arrivals []arrival
	for len(raw) > 0 {
		var e unix.InotifyEvent
		if len(raw) < unix.SizeofInotifyEvent {
			return arrivals, io.ErrUnexpectedEOF
		}
		e.Mask = binary.NativeEndian.Uint32(raw[4:])
		e.Len = binary.NativeEndian.Uint32(raw[12:])
		raw = raw[unix.SizeofInotifyEvent:]
		if uint64(len(raw)) < uint64(e.Len) {
			return arrivals, io.ErrUnexpectedEOF
		}
		name, _, _ := bytes.Cut(raw[:e.Len], []byte{0})
		raw = raw[e.Len:]
		switch {
		case e.Mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
			return arrivals, errDirectoryGone
		case e.Mask&unix.IN_Q_OVERFLOW != 0:
			arrivals = append(arrivals, arrival{})
		case len(name) > 0:
			arrivals = append(arrivals, arrival{
				name:    string(name),
				linked:  e.Mask&unix.IN_CREATE != 0,
				closed:  e.Mask&unix.IN_CLOSE_WRITE != 0,
				removed: e.Mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0,
				dir:     e.Mask&unix.IN_ISDIR != 0,
			})
		}
	}
	return arrivals, nil
}

// beingWritten tells whether another process has the file open for writing: the kernel
// grants a read lease only when none has. A filesystem without leases says no.
func beingWritten(f *os.File) bool {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	// Held no longer than that: a writer would have to wait for it.
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return false
}
