package datastore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/k3s-io/kine/pkg/logstructured"
)

// The bound on growth. History (what was overwritten and deleted) is what the API server lets kine
// forget every five minutes; a storm of Events writes gigabytes in that time. So it is forgotten by
// windows too: when one is full, all that is older than its start goes.
const (
	windowRevisions = 25_000
	windowBytes     = 32 << 20
	// compactStep is how many revisions are forgotten in one turn, between which writers get
	// theirs: some milliseconds each.
	compactStep = compactBatchSize
	// walLimit is when the write-ahead log is cut; SQLite itself writes it from its start again,
	// but can't while somebody reads.
	walLimit = 64 << 20
	// walLook is how many writes are between two looks at its size.
	walLook = 500
	// Free space in the file beyond vacuumFrom is given back down to vacuumTo, if it is a quarter
	// of the file: what is used again soon stays.
	vacuumFrom = 32 << 20
	vacuumTo   = 16 << 20
	// vacuumStep is how many pages are moved in one turn.
	vacuumStep = 500
)

// upkeep bounds what the database takes on the disk. One goroutine runs it; wrote is called by
// writers, with the writer's mutex held.
type upkeep struct {
	ctx    context.Context
	writer *oneWriter
	log    logstructured.Log
	db     *sql.DB
	opts   Options
	wake   chan struct{}

	compacting sync.Mutex // one at a time

	mu     sync.Mutex
	start  int64 // the revision at which the window began, 0 before the first write
	last   int64
	bytes  int
	writes int
	target int64 // what is to be forgotten; 0 for nothing
}

func newUpkeep(ctx context.Context, w *oneWriter, log logstructured.Log, db *sql.DB, opts Options) *upkeep {
	return &upkeep{ctx: ctx, writer: w, log: log, db: db, opts: opts, wake: make(chan struct{}, 1)}
}

// wrote counts a write.
func (u *upkeep) wrote(revision int64, bytes int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.start == 0 {
		u.start = revision
	}
	u.last = max(u.last, revision)
	u.bytes += bytes
	u.writes++
	if u.bytes >= windowBytes || u.last-u.start >= windowRevisions {
		u.target, u.start, u.bytes = u.start, u.last, 0
		u.raise()
	} else if u.writes%walLook == 0 {
		u.raise()
	}
}

func (u *upkeep) raise() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// run works until the store ends.
func (u *upkeep) run() {
	for {
		select {
		case <-u.wake:
		case <-u.ctx.Done():
			return
		}
		u.mu.Lock()
		target := u.target
		u.target = 0
		u.mu.Unlock()
		var err error
		if target > 0 {
			err = u.compact(u.ctx, target)
		}
		if err = errors.Join(err, u.cutLog(u.ctx)); err != nil && u.ctx.Err() == nil {
			u.opts.Logger.Warn("the datastore grows: it can't be compacted now; trying again as it is written", "error", err)
		}
	}
}

// compact forgets history up to a revision, as far as kine lets go of it, and gives space back.
func (u *upkeep) compact(ctx context.Context, target int64) error {
	u.compacting.Lock()
	defer u.compacting.Unlock()
	done, err := u.log.CompactRevision(ctx)
	if err != nil {
		return fmt.Errorf("compact datastore: %w", err)
	}
	for done < target {
		before := done
		u.writer.mu.Lock()
		_, err := u.log.Compact(ctx, min(done+compactStep, target))
		u.writer.mu.Unlock()
		if err != nil {
			return fmt.Errorf("compact datastore: %w", err)
		}
		if done, err = u.log.CompactRevision(ctx); err != nil {
			return fmt.Errorf("compact datastore: %w", err)
		}
		if done == before { // the rest is too young, or kine has logged why not
			break
		}
	}
	return u.vacuum(ctx)
}

// vacuum gives free space at the end of the file back to the file system, a little at a time.
func (u *upkeep) vacuum(ctx context.Context) error {
	total, free, size, err := pages(ctx, u.db)
	if err != nil {
		return fmt.Errorf("vacuum datastore: %w", err)
	}
	if free*size < vacuumFrom || free < total/4 {
		return nil
	}
	for free*size > vacuumTo {
		before := free
		u.writer.mu.Lock()
		err := drain(ctx, u.db, fmt.Sprintf("PRAGMA incremental_vacuum(%d)", vacuumStep))
		u.writer.mu.Unlock()
		if err == nil {
			_, free, _, err = pages(ctx, u.db)
		}
		if err != nil {
			return fmt.Errorf("vacuum datastore: %w", err)
		}
		if free >= before {
			return nil // a file from before incremental vacuum: the next start converts it
		}
	}
	return checkpoint(ctx, u.db, "PASSIVE")
}

// cutLog shortens a write-ahead log that has grown too long. Writers wait for that; a reader that
// does not end in time makes it fail, until the next time.
func (u *upkeep) cutLog(ctx context.Context) error {
	info, err := os.Stat(u.opts.File + "-wal")
	if err != nil || info.Size() < walLimit {
		return nil //nolint:nilerr // without a log there is nothing to cut
	}
	u.writer.mu.Lock()
	defer u.writer.mu.Unlock()
	return withDB(sourceName(u.opts.File, map[string][]string{"_busy_timeout": {"2000"}, "_synchronous": {"FULL"}}), func(db *sql.DB) error {
		return checkpoint(ctx, db, "TRUNCATE")
	})
}

// checkpoint moves the write-ahead log into the database. It is an error when somebody kept it from
// doing all of that, unless it is PASSIVE.
func checkpoint(ctx context.Context, db *sql.DB, mode string) error {
	var busy, logged, moved int
	if err := db.QueryRowContext(ctx, "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &logged, &moved); err != nil {
		return fmt.Errorf("write the log into the database: %w", err)
	}
	if busy != 0 && mode != "PASSIVE" {
		return errors.New("write the log into the database: somebody reads it")
	}
	return nil
}

// pages are the numbers of all and of free pages, and the bytes that each has.
func pages(ctx context.Context, db *sql.DB) (total, free, size int64, err error) {
	const question = "SELECT page_count, freelist_count, page_size FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"
	err = db.QueryRowContext(ctx, question).Scan(&total, &free, &size)
	return total, free, size, err
}

// Usage says how much of the disk a database takes, with its log, in bytes.
func Usage(file string) (int64, error) {
	names, err := filepath.Glob(file + "*")
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return 0, err
		}
		sum += info.Size()
	}
	return sum, nil
}
