package containerd

import (
	"context"
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

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// archiveSuffixes are the names that count as image archives. What is in a file is told
// by its first bytes.
var archiveSuffixes = []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tzst"}

// feed imports the archives of a directory: those that are there when it begins, then
// each that arrives. One at a time, since an import is bound by the disk.
type feed struct {
	dir    string
	store  store
	ledger *ledger
	// pin keeps the images of archives that are in the directory from being removed to make
	// room.
	pin bool
	// troubles are told which archives are broken.
	troubles *troubles
	log      hclog.Logger
}

// archiveTrouble and an archive's name are the subject of what is wrong with it.
const archiveTrouble = "archive "

// run blocks until ctx ends. The directory is made when it is missing, also later. A
// broken archive is logged and does not stop the others; it is tried again when it
// changes and when the feed begins anew. What stops the feed is logged too: containers
// go on without it.
func (f feed) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.follow(ctx)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errDirectoryGone):
			f.log.Warn("the directory of image archives was removed; making it again", "directory", f.dir)
		default:
			f.log.Error("watch for image archives; what arrives now is imported at the next start, or by k3m image import",
				"directory", f.dir, "error", err)
			<-ctx.Done()
		}
	}
}

// follow imports until the directory goes away.
func (f feed) follow(ctx context.Context) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	w, err := newWatch(f.dir) // before the scan, so that nothing falls between
	if err != nil {
		return errors.Join(err, f.scan(ctx))
	}
	arrivals := make(chan arrival)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		return w.Close()
	})
	g.Go(func() error {
		for {
			batch, err := w.next()
			for _, a := range batch {
				select {
				case arrivals <- a:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if err != nil {
				return err
			}
		}
	})
	g.Go(func() error {
		if err := f.scan(ctx); err != nil {
			return err
		}
		for {
			select {
			case a := <-arrivals:
				switch {
				case a.dir:
				case a.name == "":
					if err := f.scan(ctx); err != nil {
						return err
					}
				case a.removed:
					f.troubles.set(archiveTrouble+a.name, "")
					f.settle(ctx)
				case !a.linked || f.isLink(a.name):
					f.take(ctx, a.name, a.closed)
					f.settle(ctx)
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return g.Wait()
}

// scan takes every file of the directory, in the order of their names.
func (f feed) scan(ctx context.Context) error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return errDirectoryGone
	}
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, e := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !e.IsDir() {
			there[e.Name()] = true
			f.take(ctx, e.Name(), false)
		}
	}
	f.troubles.keep(archiveTrouble, func(name string) bool { return there[name] })
	f.settle(ctx)
	return nil
}

// settle pins the images of the archives that are in the directory, and no others.
func (f feed) settle(ctx context.Context) {
	wanted := map[string]bool{}
	if f.pin {
		for name, entry := range f.ledger.files {
			if _, err := os.Stat(filepath.Join(f.dir, name)); err == nil {
				for _, image := range entry.Images {
					wanted[image] = true
				}
			}
		}
	}
	err := f.store.pin(ctx, func(name string) bool { return wanted[name] })
	if err != nil && ctx.Err() == nil {
		f.log.Error("pin the images of archives", "error", err)
	}
}

// isLink tells whether a name is a symbolic link or one of several of a file.
func (f feed) isLink(name string) bool {
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(f.dir, name), &st); err != nil {
		return false
	}
	return st.Mode&unix.S_IFMT == unix.S_IFLNK || st.Nlink > 1
}

// take imports one file if it is a complete archive that was not imported yet, and reports
// how that went. A file that was closed is taken for complete: if somebody writes on,
// another close follows.
func (f feed) take(ctx context.Context, name string, closed bool) {
	if strings.HasPrefix(name, ".") || !isArchiveName(name) {
		f.log.Debug("not the name of an image archive", "file", name)
		return
	}
	path := filepath.Join(f.dir, name)
	images, err := f.importFile(ctx, name, closed)
	switch {
	case ctx.Err() != nil: // the end of the component; the next start does it
	case errors.Is(err, errBeingWritten):
		f.log.Info("an image archive is being written; it is imported when that ends", "file", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist): // not: gone again
		f.troubles.set(archiveTrouble+name, fmt.Sprintf("import %s: %v (nothing of it is used; replace or remove the file)",
			path, strings.ReplaceAll(err.Error(), "\n", "; ")))
		f.log.Error("import an image archive; it is tried again when the file changes", "file", path, "error", err)
	default:
		f.troubles.set(archiveTrouble+name, "")
		if images != nil {
			f.log.Info("imported an image archive", "file", name, "images", images)
		}
	}
}

// errBeingWritten says that somebody has the file open for writing. Its close is an arrival.
var errBeingWritten = errors.New("it is being written")

func isArchiveName(name string) bool {
	return slices.ContainsFunc(archiveSuffixes, func(s string) bool { return strings.HasSuffix(name, s) })
}

// importFile returns the names of the images, or nil when there was nothing to do.
func (f feed) importFile(ctx context.Context, name string, closed bool) ([]string, error) {
	file, err := os.Open(filepath.Join(f.dir, name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if known, ok := f.ledger.unchanged(name, info); !info.Mode().IsRegular() || ok && f.store.holds(ctx, known.Images) {
		return nil, nil
	}
	if !closed && beingWritten(file) {
		return nil, errBeingWritten
	}
	if f.ledger.hasSize(info.Size()) {
		sum, err := digestOf(file)
		if err != nil {
			return nil, fmt.Errorf("read the archive: %w", err)
		}
		if twin, ok := f.ledger.twin(sum); ok && f.store.holds(ctx, twin.Images) {
			return nil, f.ledger.record(name, info, sum, twin.Images)
		}
	}
	hash := sha256.New()
	images, err := f.store.load(ctx, io.TeeReader(file, hash))
	if err != nil {
		return nil, err
	}
	// What follows the end of the archive belongs to the file's digest too.
	if _, err := io.Copy(hash, file); err != nil {
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	return images, f.ledger.record(name, info, hex.EncodeToString(hash.Sum(nil)), images)
}

// digestOf reads the file and goes back to its beginning.
func digestOf(file *os.File) (string, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
