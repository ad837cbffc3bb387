package datastore

import (
	"context"
	"database/sql"
	"errors"
	"net/url"

	"github.com/mattn/go-sqlite3" // the driver that kine uses
	"golang.org/x/sys/unix"
)

// Sync says when a write counts as done.
type Sync string

// The values of --datastore-sync.
const (
	// SyncFull waits for the disk at each write: what was acknowledged survives a power cut.
	SyncFull Sync = "full"
	// SyncNormal waits for the disk at checkpoints only: a power cut takes back the last
	// acknowledged writes, and never damages the file. A crash of k3m loses nothing.
	SyncNormal Sync = "normal"
)

// dataSourceName is the sqlite driver's name of file. The path is escaped for SQLite's URI
// form, in which ?, # and % mean something. kine's own default has cache=shared too, but in a
// form that the driver drops; here it would take effect, and replace waiting for locks by errors.
func dataSourceName(file string, sync Sync) string {
	synchronous := "FULL"
	if sync == SyncNormal {
		synchronous = "NORMAL"
	}
	return sourceName(file, url.Values{
		"_journal_mode": {"WAL"},
		"_synchronous":  {synchronous},
		"_busy_timeout": {"30000"}, // ms
		"_txlock":       {"immediate"},
		// Statements that each connection keeps prepared; kine uses about twenty.
		"_stmt_cache_size": {"20"},
	})
}

// creatingName is dataSourceName for the one connection that makes the file, or rewrites it. On any other,
// SQLite takes the mode as a reason to write the file's header, and to wait for its turn to.
func creatingName(file string, sync Sync) string {
	return dataSourceName(file, sync) + "&_auto_vacuum=INCREMENTAL"
}

func sourceName(file string, params url.Values) string {
	return (&url.URL{Scheme: "file", Path: file, OmitHost: true, RawQuery: params.Encode()}).String()
}

// withDB opens a database for the time of use, with one connection.
func withDB(name string, use func(db *sql.DB) error) (err error) {
	db, err := sql.Open("sqlite3", name)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	return use(db)
}

// drain runs a statement to its end: the driver's Exec takes one step, and some statements work a
// little at each.
func drain(ctx context.Context, db *sql.DB, statement string) error {
	rows, err := db.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

// isDamage tells whether SQLite found the file itself to be wrong.
func isDamage(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB)
}

// isFull tells whether a write failed for want of space.
func isFull(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrFull || e.SystemErrno == unix.ENOSPC || e.SystemErrno == unix.EDQUOT)
}

// isDisk tells whether the disk, or the file system on it, failed.
func isDisk(err error) bool {
	var e sqlite3.Error
	return isFull(err) || errors.As(err, &e) && (e.Code == sqlite3.ErrIoErr || e.Code == sqlite3.ErrReadonly || e.Code == sqlite3.ErrCantOpen)
}
