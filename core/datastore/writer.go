package datastore

import (
	"context"
	"sync"

	"github.com/k3s-io/kine/pkg/server"
)

// oneWriter lets one write at a time through to the backend. SQLite has one writer anyway, and
// those who wait for it sleep, for up to 100 ms a turn (its busy handler); a mutex wakes the next
// one at once, in order.
type oneWriter struct {
	server.Backend
	mu sync.Mutex
}

func (w *oneWriter) Create(ctx context.Context, key string, value []byte, lease int64) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Backend.Create(ctx, key, value, lease)
}

func (w *oneWriter) Update(ctx context.Context, key string, value []byte, revision, lease int64) (int64, *server.KeyValue, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Backend.Update(ctx, key, value, revision, lease)
}

func (w *oneWriter) Delete(ctx context.Context, key string, revision int64) (int64, *server.KeyValue, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Backend.Delete(ctx, key, revision)
}
