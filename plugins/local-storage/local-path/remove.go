package localpath

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// stays are the conditions under which a path is opened: every element of it lies
	// below the directory where it starts, is no symbolic link, and is on the same mount.
	stays = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	// maxDepth is how many directories are open at once while a tree is removed. What lies
	// deeper is moved up first, so that a tree of any depth can be removed.
	maxDepth = 64
	// maxRefills is how often a directory may be filled again while it is removed.
	maxRefills = 100
	// batch is how many names are read at once.
	batch = 1024
)

// openBelow opens a directory by a path relative to dir, which a pod may change meanwhile:
// what it puts there leads nowhere else.
func openBelow(dir int, path string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: stays}
	for {
		fd, err := unix.Openat2(dir, path, &how)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// removal removes one tree. It goes by descriptors only, never by a path of more than one
// element, crosses no mount point and follows no link; whatever happens in the tree
// meanwhile, nothing outside of it is touched.
type removal struct {
	ctx  context.Context
	path string   // for messages
	top  *os.File // the root of the tree, once it is open
}

// removeTree removes what is called name in dir. That it is not there is no error.
func removeTree(ctx context.Context, dir *os.File, name, path string) error {
	r := &removal{ctx: ctx, path: path}
	return r.remove(dir, name, name, 0)
}

// errChanged means that a directory became something else, or the reverse, in the middle.
var errChanged = errors.New("it changes while it is removed")

// remove removes what is called name in dir; inside is its path in the tree, for messages.
func (r *removal) remove(dir *os.File, name, inside string, depth int) error {
	for try := 0; ; try++ {
		if err := r.ctx.Err(); err != nil {
			return fmt.Errorf("remove %s: %w", r.path, err)
		}
		err := r.once(dir, name, inside, depth)
		if !errors.Is(err, errChanged) || try == maxRefills {
			return err
		}
	}
}

func (r *removal) once(dir *os.File, name, inside string, depth int) error {
	fail := func(err error) error {
		at := filepath.Join(filepath.Dir(r.path), inside)
		switch {
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EBUSY):
			return fmt.Errorf("remove %s: %.200q is a mount point, and what is mounted there is not the volume's; unmount it", r.path, at)
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("remove %s: %.200q: %w (chattr -i and -a, if a pod has made it immutable)", r.path, at, err)
		}
		return fmt.Errorf("remove %s: %.200q: %w", r.path, at, err)
	}
	fd := int(dir.Fd())
	// Most are files. A directory says so.
	err := unix.Unlinkat(fd, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fail(err)
	}
	if depth > maxDepth {
		// A name that can't be guessed: a pod could have put something there.
		if err := unix.Renameat(fd, name, int(r.top.Fd()), ".k3m-removing-"+rand.Text()); err != nil {
			return fail(err)
		}
		return nil // the top is read again until it is empty
	}
	sub, openErr := openBelow(fd, name)
	switch {
	case errors.Is(openErr, unix.ENOENT):
		return nil
	case errors.Is(openErr, unix.ENOTDIR), errors.Is(openErr, unix.ELOOP):
		if errors.Is(err, unix.EISDIR) {
			return fail(errChanged)
		}
		return fail(err) // a file that can't be unlinked
	case openErr != nil:
		return fail(openErr)
	}
	defer sub.Close()
	if depth == 0 {
		r.top = sub
	}
	for refills := 0; ; {
		// A directory that changes while it is read may skip names: from the start again, until
		// nothing is left.
		if _, err := sub.Seek(0, io.SeekStart); err != nil {
			return fail(err)
		}
		names, err := sub.Readdirnames(batch)
		if err != nil && !errors.Is(err, io.EOF) {
			return fail(err)
		}
		for _, n := range names {
			if err := r.remove(sub, n, filepath.Join(inside, n), depth+1); err != nil {
				return err
			}
		}
		if len(names) > 0 {
			continue
		}
		err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.ENOTEMPTY) && refills < maxRefills:
			refills++
			continue // someone writes still
		case errors.Is(err, unix.ENOTDIR):
			return fail(errChanged)
		}
		return fail(err)
	}
}
