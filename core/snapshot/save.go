package snapshot

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/core/atomicfile"
	"github.com/k3m-io/k3m/core/datastore"
)

// partial is how names of files begin that are not complete; nobody lists them.
const partial = ".partial-"

// reserve is what is left free on the disk beside the room that a snapshot needs.
const reserve = 16 << 20

// Save makes a snapshot, of a datastore that may be in use, for one of the reasons. It is called
// prefix, or the reason, and the node and the time. What it copied was checked whole.
func Save(ctx context.Context, o Options, reason, prefix string) (info Info, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save snapshot: %w", err)
		}
	}()
	created := time.Now().UTC()
	if prefix == "" {
		prefix = reason
	}
	name := strings.Join([]string{prefix, o.Node, created.Format("20060102-150405")}, "-")
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return Info{}, err
	}
	if _, err := os.Lstat(o.file(name)); err == nil {
		return Info{}, fmt.Errorf("%s exists already", name)
	}
	if err := hasRoom(o); err != nil {
		return Info{}, err
	}
	work, err := os.MkdirTemp(o.Dir, partial)
	if err != nil {
		return Info{}, err
	}
	defer os.RemoveAll(work)
	copied := filepath.Join(work, "state.db")
	if err := backup(ctx, o.Database, copied); err != nil {
		return Info{}, err
	}
	meta := Meta{Format: format, Reason: reason, Created: created.Truncate(time.Second), Node: o.Node, Version: o.Version}
	if meta.Revision, err = examine(ctx, copied); err != nil {
		return Info{}, err
	}
	if meta.DatabaseBytes, meta.DatabaseSHA256, err = sum(copied); err != nil {
		return Info{}, err
	}
	if meta.AuthorityHash, err = o.authorityHash(); err != nil {
		return Info{}, err
	}
	bootstrap, err := o.sealBootstrap()
	if err != nil {
		return Info{}, fmt.Errorf("seal the certificates: %w", err)
	}
	packed := filepath.Join(work, "archive")
	if err := pack(packed, meta, bootstrap, copied); err != nil {
		return Info{}, err
	}
	if err := os.Rename(packed, o.file(name)); err != nil {
		return Info{}, err
	}
	if err := atomicfile.SyncDir(o.Dir); err != nil {
		return Info{}, err
	}
	return describe(o.file(name)), nil
}

// hasRoom refuses a snapshot that would fill the disk, which the datastore may be on too: for a
// while there is a copy as it is, and a packed one.
func hasRoom(o Options) error {
	used, err := datastore.Usage(o.Database)
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(o.Dir, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free < 2*used+reserve {
		return fmt.Errorf("%s has %d MB free, and %d are needed: free space there, or choose another --snapshot-dir", o.Dir, free>>20, (2*used+reserve)>>20)
	}
	return nil
}

// backup copies a database with SQLite's online backup, in one go: who writes meanwhile is not
// kept waiting, as a reader keeps nobody from writing the log.
func backup(ctx context.Context, from, to string) error {
	if _, err := os.Stat(from); err != nil { // SQLite would make one
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no datastore: %w", err)
		}
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // not with SQLite's mode
	if err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return withConn(ctx, uri(from, "mode=rw"), func(source *sqlite3.SQLiteConn) error {
		return withConn(ctx, uri(to, "mode=rw"), func(target *sqlite3.SQLiteConn) error {
			b, err := target.Backup("main", source, "main")
			if err != nil {
				return err
			}
			done, err := b.Step(-1)
			if err := errors.Join(err, b.Finish()); err != nil {
				return err
			}
			if !done {
				return errors.New("the copy did not end: try again")
			}
			return nil
		})
	})
}

// withConn opens one connection, as the driver knows it, for the time of use.
func withConn(ctx context.Context, name string, use func(*sqlite3.SQLiteConn) error) (err error) {
	db, err := sql.Open("sqlite3", name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return conn.Raw(func(c any) error { return use(c.(*sqlite3.SQLiteConn)) })
}

func uri(file, query string) string {
	return (&url.URL{Scheme: "file", Path: file, OmitHost: true, RawQuery: query}).String()
}

// examine checks all of a copy, and returns its last revision.
func examine(ctx context.Context, file string) (revision int64, err error) {
	if err := datastore.Check(ctx, file, true); err != nil {
		return 0, err
	}
	db, err := sql.Open("sqlite3", uri(file, "mode=rw"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return revision, db.QueryRowContext(ctx, "SELECT COALESCE(MAX(id), 0) FROM kine").Scan(&revision)
}

func sum(file string) (int64, string, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	return n, hex.EncodeToString(hash.Sum(nil)), err
}

// pack writes the snapshot's file, to the disk.
func pack(to string, meta Meta, bootstrap []byte, database string) (err error) {
	in, err := os.Open(database)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := writeArchive(out, meta, bootstrap, in); err != nil {
		return err
	}
	return out.Sync()
}

// Sweep removes what saves left that were killed. Nobody may be saving.
func Sweep(o Options) error {
	left, err := filepath.Glob(filepath.Join(o.Dir, partial+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range left {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
