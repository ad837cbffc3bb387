package datastore

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/k3s-io/kine/pkg/logstructured"
	"github.com/k3s-io/kine/pkg/server"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/k3m-io/k3m/core/health"
)

// oneWriter lets one write at a time through to the backend. SQLite has one writer anyway, and
// those who wait for it sleep, for up to 100 ms a turn (its busy handler); a mutex wakes the next
// one at once, in order. What goes wrong in a write is the answer to it: see honestLog.
type oneWriter struct {
	server.Backend
	mu     sync.Mutex
	upkeep *upkeep
}

func (w *oneWriter) Create(ctx context.Context, key string, value []byte, lease int64) (rev int64, err error) {
	failed := w.write(ctx, len(value), func(ctx context.Context) int64 {
		rev, err = w.Backend.Create(ctx, key, value, lease)
		return rev
	})
	if failed != nil {
		return 0, failed
	}
	return rev, err
}

func (w *oneWriter) Update(ctx context.Context, key string, value []byte, revision, lease int64) (rev int64, kv *server.KeyValue, ok bool, err error) {
	failed := w.write(ctx, 2*len(value), func(ctx context.Context) int64 {
		rev, kv, ok, err = w.Backend.Update(ctx, key, value, revision, lease)
		return rev
	})
	if failed != nil {
		return 0, nil, false, failed
	}
	return rev, kv, ok, err
}

func (w *oneWriter) Delete(ctx context.Context, key string, revision int64) (rev int64, kv *server.KeyValue, ok bool, err error) {
	failed := w.write(ctx, 0, func(ctx context.Context) int64 {
		rev, kv, ok, err = w.Backend.Delete(ctx, key, revision)
		return rev
	})
	if failed != nil {
		return 0, nil, false, failed
	}
	return rev, kv, ok, err
}

// Compact is the API server's request of every five minutes.
func (w *oneWriter) Compact(ctx context.Context, revision int64) (int64, error) {
	current, err := w.CurrentRevision(ctx)
	if err != nil {
		return 0, err
	}
	if revision > current {
		return 0, server.ErrFutureRev
	}
	return current, w.upkeep.compact(ctx, revision)
}

// write does one write, of about so many bytes, and returns why it failed, if it is not for
// what the database holds.
func (w *oneWriter) write(ctx context.Context, bytes int, do func(context.Context) int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var failed error
	revision := do(context.WithValue(ctx, failureKey{}, &failed))
	if failed == nil {
		w.upkeep.wrote(revision, bytes)
	}
	return failed
}

type failureKey struct{}

// honestLog tells oneWriter of writes that failed. kine (v0.17.5) takes any failure of an insert
// for a key that exists, looks the key up, and answers from what it finds: a create that found the disk
// full was acknowledged.
type honestLog struct {
	logstructured.Log
	disk *disk
}

// Append writes one event.
func (l *honestLog) Append(ctx context.Context, event *server.Event) (int64, error) {
	rev, err := l.Log.Append(ctx, event)
	if errors.Is(err, server.ErrKeyExists) {
		return rev, err
	}
	l.disk.tell(err)
	if err != nil {
		if failed, ok := ctx.Value(failureKey{}).(*error); ok {
			*failed = answer(err)
		}
	}
	return rev, err
}

// answer is what a client of the API reads.
func answer(err error) error {
	switch {
	case isFull(err):
		return status.Error(codes.ResourceExhausted, "k3m: the disk of the datastore is full: nothing can be written until there is space")
	case isDamage(err):
		return status.Error(codes.DataLoss, "k3m: the datastore is damaged: "+err.Error())
	}
	return err
}

// partDisk is what the disk is called on the health board, where it is while writes fail.
const partDisk = "datastore disk"

// disk knows whether the last write failed. It may be told by any number of goroutines.
type disk struct {
	file   string
	health *health.Board
	log    *slog.Logger
	failed atomic.Bool
}

// tell takes what came of a write.
func (d *disk) tell(err error) {
	if err == nil {
		if d.failed.Load() && d.failed.CompareAndSwap(true, false) {
			d.log.Info("the datastore can be written again")
			d.health.Remove(partDisk)
		}
		return
	}
	c := health.Condition{Part: partDisk, State: health.Failed}
	switch {
	case isFull(err):
		c.Message = "full: nothing can be written"
		c.Fix = "free space on the file system of " + filepath.Dir(d.file) + ": writes then go on by themselves"
	case isDamage(err):
		c.Message = "the datastore is damaged: " + err.Error()
		c.Fix = "stop k3m, look at the disk, and restore a snapshot: `k3m snapshot list`"
	case isDisk(err):
		c.Message = "writes fail: " + err.Error()
		c.Fix = "look at the disk of " + filepath.Dir(d.file) + ", and at what the kernel says of it"
	default: // a client that has gone
		return
	}
	d.health.Set(c)
	if d.failed.CompareAndSwap(false, true) {
		d.log.Error("the datastore can't be written", "error", err)
	}
}
