package datastore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/k3m-io/k3m/core/atomicfile"
)

// DamagedError says that a database can't be used. Nothing was changed.
type DamagedError struct {
	File string
	// Problems are what SQLite found, at most ten.
	Problems []string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("the datastore %s is damaged (%s): k3m leaves it as it is and does not start on it; "+
		"`k3m snapshot list` shows what can be restored, `k3m snapshot restore NAME` restores it", e.File, strings.Join(e.Problems, "; "))
}

// clusterMark is the file which says that the database beside it was complete once. Without it, a
// missing or empty database would be taken for a new cluster's.
func clusterMark(file string) string { return filepath.Join(filepath.Dir(file), "cluster") }

// cleanMark is the file which says that the database beside it was closed in order.
func cleanMark(file string) string { return filepath.Join(filepath.Dir(file), "clean") }

// prepare looks at a database before kine opens it, which tries for five minutes before it says what
// is wrong. A file that was closed in order is looked at quickly; after a crash all of it is checked.
func prepare(ctx context.Context, opts Options) error {
	file := opts.File
	clean, err := exists(cleanMark(file))
	if err != nil {
		return err
	}
	made, err := exists(clusterMark(file))
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	empty := err != nil || info.Size() == 0
	if made && empty {
		return &DamagedError{file, []string{fmt.Sprintf("the file is missing or empty although a cluster was kept in it; "+
			"remove %s too if you want to start a new one", filepath.Dir(file))}}
	}
	if !empty {
		start := time.Now()
		if err := Check(ctx, file, !clean); err != nil {
			return err
		}
		if !clean {
			opts.Logger.Info("the datastore was not closed in order; it was checked and is sound", "took", time.Since(start).Round(time.Millisecond))
		}
	}
	// Removing takes no space: a full disk keeps no server from starting.
	if err := os.Remove(cleanMark(file)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := restrict(file); err != nil {
		return err
	}
	return withDB(creatingName(file, opts.Sync), func(db *sql.DB) error { return rewrite(ctx, db, opts) })
}

// Check looks at a database that may be in use. It is quick, a few pages, unless all of it is to be
// checked, which reads the file once. What it finds is a DamagedError.
func Check(ctx context.Context, file string, all bool) error {
	// Not read-only: after a crash, who opens the file first rebuilds the index of its log.
	name := sourceName(file, map[string][]string{"mode": {"rw"}, "_busy_timeout": {"30000"}})
	err := withDB(name, func(db *sql.DB) error {
		if err := checkHeader(ctx, file, db); err != nil {
			return err
		}
		if !all {
			return nil
		}
		return checkAll(ctx, file, db)
	})
	if isDamage(err) {
		return &DamagedError{file, []string{err.Error()}}
	}
	return err
}

// checkHeader reads what a start needs: the header, the schema, both ends of the table.
func checkHeader(ctx context.Context, file string, db *sql.DB) error {
	total, _, _, err := pages(ctx, db)
	if err != nil {
		return err
	}
	var tables int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_schema WHERE name IN ('kine', 'sqlite_sequence')").Scan(&tables); err != nil {
		return err
	}
	if tables == 0 && total <= 1 {
		return nil // nothing was written yet
	}
	var lowest, highest sql.NullInt64
	if err := db.QueryRowContext(ctx, "SELECT (SELECT MIN(id) FROM kine), (SELECT MAX(id) FROM kine)").Scan(&lowest, &highest); err != nil {
		if isDamage(err) {
			return err
		}
		return &DamagedError{file, []string{"it holds no cluster: " + err.Error()}}
	}
	return nil
}

// checkAll reads everything.
func checkAll(ctx context.Context, file string, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "PRAGMA integrity_check(10)")
	if err != nil {
		return err
	}
	defer rows.Close()
	var problems []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return err
		}
		if line != "ok" {
			problems = append(problems, strings.Join(strings.Fields(line), " "))
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(problems) > 0 {
		return &DamagedError{file, problems}
	}
	return nil
}

// rewrite writes the whole database anew where that is worth the time: when most of it is free space,
// or when it is from before incremental vacuum.
func rewrite(ctx context.Context, db *sql.DB, opts Options) error {
	total, free, size, err := pages(ctx, db)
	if err != nil {
		return err
	}
	var mode int
	if err := db.QueryRowContext(ctx, "PRAGMA auto_vacuum").Scan(&mode); err != nil {
		return err
	}
	const incremental = 2
	if total > 1 && mode != incremental || free*size > 2*vacuumFrom && free > total/2 {
		if _, err := db.ExecContext(ctx, "VACUUM"); err != nil { // for want of space, say: it is as good as before
			opts.Logger.Warn("free space in the datastore can't be given back", "error", err)
		}
	}
	return nil
}

// leaveClean writes the log into the database and says that it was closed in order.
func leaveClean(opts Options) error {
	ctx := context.Background()
	err := withDB(sourceName(opts.File, map[string][]string{"_busy_timeout": {"500"}, "_synchronous": {"FULL"}}), func(db *sql.DB) error {
		return checkpoint(ctx, db, "TRUNCATE")
	})
	if err != nil {
		return err
	}
	return atomicfile.Write(cleanMark(opts.File), []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600)
}

// markCluster notes that the database is complete.
func markCluster(file string) error {
	mark := clusterMark(file)
	if made, err := exists(mark); made || err != nil {
		return err
	}
	text := "The datastore of this folder was made at " + time.Now().UTC().Format(time.RFC3339) + ". k3m does not start a new one while this file is here.\n"
	if err := atomicfile.Write(mark, []byte(text), 0o600); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(filepath.Dir(mark))) // the folder itself
}

// restrict makes the file root's alone, as its copies will be; SQLite gives the files beside it the
// same mode.
func restrict(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

func exists(file string) (bool, error) {
	_, err := os.Lstat(file)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
