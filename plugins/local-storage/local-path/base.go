package localpath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// stagingPrefix begins the name of a directory that is being made into a volume. A path
	// pattern gives no name that begins with a dot.
	stagingPrefix = ".k3m-new-"
	// baseMode keeps all users of the host but root from the volumes, which pods of any user
	// may write; parentMode is that of directories between the base and a volume.
	baseMode, parentMode = 0o700, 0o711
	// volumeMode lets a pod of any user write; that is what the kubelet's fsGroup can't do
	// for a pod that has none.
	volumeMode = 0o777
)

// errTaken means that there is something already where a volume's directory should be.
var errTaken = errors.New("there is something of this name already")

// base is a directory that holds volumes. It is opened anew for each operation, so that
// what an operator mounts there is seen. Its methods may be called by several goroutines.
type base struct {
	path string
	// parents is held while directories between the base and a volume come and go.
	parents sync.Mutex
}

// prepare makes the base where it is not, and removes what a crash left half made.
func (b *base) prepare() error {
	if err := os.MkdirAll(b.path, baseMode); err != nil {
		return fmt.Errorf("make the directory of volumes: %w", err)
	}
	dir, err := b.open()
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(batch)
		for _, name := range names {
			// Empty, since nobody knew of it; what is not empty is not ours, and stays.
			if strings.HasPrefix(name, stagingPrefix) {
				_ = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the directory of volumes: %w", err)
		}
	}
}

func (b *base) open() (*os.File, error) {
	// The base itself is the operator's word, and may lead over links and mounts.
	fd, err := unix.Open(b.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the directory of volumes: %w", &fs.PathError{Op: "open", Path: b.path, Err: err})
	}
	return os.NewFile(uintptr(fd), b.path), nil
}

// free returns how many bytes an unprivileged user can still write, and how many there
// are.
func (b *base) free() (free, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(b.path, &st); err != nil {
		return 0, 0, fmt.Errorf("look how much space is free: %w", &fs.PathError{Op: "statfs", Path: b.path, Err: err})
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// inode identifies a directory for as long as it exists.
type inode struct {
	Device uint64 `json:"device"`
	Number uint64 `json:"number"`
}

func inodeOf(f *os.File) (inode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return inode{}, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return inode{Device: uint64(st.Dev), Number: st.Ino}, nil
}

// stage makes an empty directory that is not a volume yet, under a name that only the
// volume pv has.
func (b *base) stage(pv string) (*os.File, error) {
	dir, err := b.open()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := stagingPrefix + pv
	fail := func(err error) (*os.File, error) {
		return nil, fmt.Errorf("make the directory of volume %s: %w", pv, &fs.PathError{Op: "mkdir", Path: filepath.Join(b.path, name), Err: err})
	}
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return fail(err)
	}
	staged, err := openBelow(int(dir.Fd()), name)
	if err != nil {
		return fail(err)
	}
	// The process's umask does not matter this way.
	if err := unix.Fchmod(int(staged.Fd()), volumeMode); err != nil {
		staged.Close()
		return fail(err)
	}
	return staged, nil
}

// unstage removes what stage made.
func (b *base) unstage(pv string) error {
	dir, err := b.open()
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Unlinkat(int(dir.Fd()), stagingPrefix+pv, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the unfinished directory of volume %s: %w", pv, err)
	}
	return nil
}

// publish gives the staged directory its path. It never replaces what is there: errTaken.
func (b *base) publish(pv, path string) error {
	dir, err := b.open()
	if err != nil {
		return err
	}
	defer dir.Close()
	b.parents.Lock()
	defer b.parents.Unlock()
	parent, err := makeParents(dir, filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("make the directories above %s: %w", filepath.Join(b.path, path), err)
	}
	defer parent.Close()
	err = unix.Renameat2(int(dir.Fd()), stagingPrefix+pv, int(parent.Fd()), filepath.Base(path), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		removeParents(dir, filepath.Dir(path))
		return fmt.Errorf("%s: %w", filepath.Join(b.path, path), errTaken)
	}
	if err != nil {
		return fmt.Errorf("make the directory of volume %s: %w", pv, &fs.PathError{Op: "rename", Path: filepath.Join(b.path, path), Err: err})
	}
	return errors.Join(parent.Sync(), dir.Sync())
}

// makeParents opens the directory above a volume, and makes what is missing on the way.
func makeParents(dir *os.File, path string) (*os.File, error) {
	at, err := openBelow(int(dir.Fd()), ".")
	if err != nil || path == "." {
		return at, err
	}
	for _, element := range strings.Split(path, "/") {
		fd := int(at.Fd())
		if err := unix.Mkdirat(fd, element, parentMode); err != nil && !errors.Is(err, unix.EEXIST) {
			at.Close()
			return nil, err
		}
		next, err := openBelow(fd, element)
		at.Close()
		if err != nil {
			return nil, err
		}
		at = next
		// Where others can write, they could put links and more.
		if st, err := at.Stat(); err != nil || st.Mode().Perm()&0o022 != 0 {
			at.Close()
			return nil, errors.Join(fmt.Errorf("%s can be written by others: it is a volume itself", element), err)
		}
	}
	return at, nil
}

// removeParents removes directories above a volume that is gone, as far as they are empty.
// b.parents is held.
func removeParents(dir *os.File, path string) {
	for ; path != "."; path = filepath.Dir(path) {
		parent, err := openBelow(int(dir.Fd()), filepath.Dir(path))
		if err != nil {
			return
		}
		err = unix.Unlinkat(int(parent.Fd()), filepath.Base(path), unix.AT_REMOVEDIR)
		parent.Close()
		if err != nil {
			return // not empty, in general
		}
	}
}

// volume opens a volume's directory; fs.ErrNotExist if it is gone.
func (b *base) volume(path string) (*os.File, error) {
	dir, err := b.open()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := openBelow(int(dir.Fd()), path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(b.path, path), Err: err}
	}
	return f, nil
}

// remove removes a volume's directory with all that is in it, and directories above it
// that are empty then. That it is gone already is no error.
func (b *base) remove(ctx context.Context, path string) error {
	dir, err := b.open()
	if err != nil {
		return err
	}
	defer dir.Close()
	parent, err := openBelow(int(dir.Fd()), filepath.Dir(path))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	full := filepath.Join(b.path, path)
	if err != nil {
		return fmt.Errorf("remove %s: %w", full, &fs.PathError{Op: "open", Path: filepath.Dir(full), Err: err})
	}
	defer parent.Close()
	if err := removeTree(ctx, parent, filepath.Base(path), full); err != nil {
		return err
	}
	b.parents.Lock()
	defer b.parents.Unlock()
	removeParents(dir, filepath.Dir(path))
	return nil
}
