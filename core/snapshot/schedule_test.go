package snapshot_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/k3m-io/k3m/core/health"
	"github.com/k3m-io/k3m/core/snapshot"
)

// TestSchedule makes up for a time that has passed, keeps what it shall, and tells of failures.
func TestSchedule(t *testing.T) {
	m := newMachine(t, filepath.Join(t.TempDir(), "snapshots"))
	m.found(t)
	_, stop := m.open(t)
	defer stop()
	hand := save(t, m, "by-hand")
	made := make(chan error)
	board := health.NewBoard()
	var fail atomic.Bool
	s := snapshot.Schedule{
		Options: m.opts, Spec: "@every 1s", Retention: 2, Health: board, Logger: slog.New(slog.DiscardHandler),
		Save: func(ctx context.Context, reason string) (snapshot.Info, error) {
			var info snapshot.Info
			err := errors.New("no space")
			if !fail.Load() {
				info, err = snapshot.Save(ctx, m.opts, reason, "")
			}
			select {
			case made <- err:
			case <-ctx.Done(): // one more began before the test's end
			}
			return info, err
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	for range 4 {
		if err := <-made; err != nil {
			t.Fatal(err)
		}
	}
	fail.Store(true) // the next one; the fourth is being listed
	if err := <-made; err == nil {
		t.Fatal("it did not fail")
	}
	for changed := board.Changed(); len(board.Conditions()) == 0; changed = board.Changed() {
		<-changed
	}
	if c := board.Conditions()[0]; c.State != health.Degraded || !strings.Contains(c.Message, "no space") {
		t.Errorf("the board says %+v", c)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	all, err := snapshot.List(m.opts)
	if err != nil {
		t.Fatal(err)
	}
	scheduled := 0
	for _, info := range all {
		if info.Reason == snapshot.Scheduled {
			scheduled++
		}
	}
	if scheduled != 2 || len(all) != 3 || all[0].Name != hand.Name {
		t.Errorf("left are %+v", all)
	}

	// A server that was off for a day.
	past := snapshot.Schedule{Options: m.opts, Spec: "0 */12 * * *", Retention: 2, Health: health.NewBoard(), Logger: s.Logger, Save: s.Save}
	old := all[len(all)-1]
	age(t, old, 24*time.Hour)
	age(t, all[len(all)-2], 36*time.Hour)
	ctx, cancel = context.WithCancel(t.Context())
	go func() { ended <- past.Run(ctx) }()
	if err := <-made; err == nil {
		t.Error("the failure that was asked for did not come")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// age makes a snapshot older than it is.
func age(t *testing.T, info snapshot.Info, by time.Duration) {
	t.Helper()
	if err := snapshot.Rewrite(info.File, func(m *snapshot.Meta) { m.Created = m.Created.Add(-by) }); err != nil {
		t.Fatal(err)
	}
}
