package snapshot

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/k3m-io/k3m/core/atomicfile"
	"github.com/k3m-io/k3m/core/datastore"
)

// ErrToken is in the error about a snapshot that can't be restored without the token.
var ErrToken = errors.New("this data directory has no certificates, and those in the snapshot are sealed: give the token that the cluster had, with --token-file or K3M_TOKEN")

// revisionGap is how far the revisions of a restored datastore are from those that were given out
// after the snapshot was made: who watches from one of those is told that it is gone, and lists
// again. It is what etcd's documentation recommends for Kubernetes.
const revisionGap = 1_000_000_000

// Restored says what a restore did.
type Restored struct {
	Info
	// Replaced is where the old datastore is, "" if there was none.
	Replaced string `json:"replaced,omitempty"`
	// Certificates says that the cluster's certificates were restored too.
	Certificates bool `json:"certificates"`
}

// Restore puts a snapshot in the place of the datastore, which is moved aside. The caller holds the data
// directory's lock: no server runs. token is needed in an empty data directory only.
func Restore(ctx context.Context, o Options, which, token string) (Restored, error) {
	info, err := Find(o, which)
	if err != nil {
		return Restored{}, err
	}
	out := Restored{Info: info}
	mine, err := o.authorityHash()
	if err != nil {
		return out, fmt.Errorf("restore snapshot: %w", err)
	}
	switch {
	case mine == "" && token == "":
		return out, fmt.Errorf("restore snapshot: %w", ErrToken)
	case mine != "" && mine != info.AuthorityHash:
		return out, fmt.Errorf("restore snapshot: %s belongs to another cluster than the snapshot: restore it into an empty --data-dir", o.TLSDir)
	}
	dir := filepath.Dir(o.Database)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return out, fmt.Errorf("restore snapshot: %w", err)
	}
	work, err := os.MkdirTemp(dir, ".restore-")
	if err != nil {
		return out, fmt.Errorf("restore snapshot: %w", err)
	}
	defer os.RemoveAll(work)
	database := filepath.Join(work, "state.db")
	sealed, err := unpack(ctx, info, database)
	if err != nil {
		return out, err
	}
	if err := leap(ctx, database); err != nil {
		return out, fmt.Errorf("restore snapshot: %w", err)
	}
	if mine == "" {
		contents, err := openBootstrap(sealed, token)
		if err != nil {
			return out, fmt.Errorf("restore snapshot %s: %w", info.Name, err)
		}
		if err := o.putBootstrap(contents, token); err != nil {
			return out, fmt.Errorf("restore snapshot %s: put the certificates in place: %w", info.Name, err)
		}
		out.Certificates = true
	}
	if out.Replaced, err = datastore.Replace(o.Database, database, time.Now()); err != nil {
		return out, fmt.Errorf("restore snapshot: %w", err)
	}
	return out, nil
}

// leap moves a datastore's revision far ahead and forgets its history.
func leap(ctx context.Context, file string) (err error) {
	db, err := sql.Open("sqlite3", uri(file, "mode=rw&_synchronous=FULL"))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	var last int64
	if err := tx.QueryRowContext(ctx, "SELECT COALESCE(MAX(id), 0) FROM kine").Scan(&last); err != nil {
		return err
	}
	last += revisionGap
	for _, step := range []struct {
		statement string
		args      []any
	}{
		// What was overwritten or deleted, as kine's compaction says it.
		{`DELETE FROM kine WHERE id IN (SELECT prev_revision FROM kine WHERE name != 'compact_rev_key' AND prev_revision != 0
			UNION ALL SELECT id FROM kine WHERE deleted != 0)`, nil},
		{"UPDATE kine SET prev_revision = ? WHERE name = 'compact_rev_key'", []any{last - 1}},
		// kine's own filler, which it tells no watch of.
		{`INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value)
			VALUES (?, ?, 0, 1, 0, 0, 0, NULL, NULL)`, []any{last, fmt.Sprintf("gap-%d", last)}},
	} {
		if _, err := tx.ExecContext(ctx, step.statement, step.args...); err != nil {
			return fmt.Errorf("move the revision ahead: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(file))
}
