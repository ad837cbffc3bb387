package main

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"

	"github.com/k3m-io/k3m/core/snapshot"
)

const snapshotsPath = "/v1/snapshots"

func (s *server) snapshotRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST "+snapshotsPath, func(w http.ResponseWriter, r *http.Request) {
		prefix, dir := r.URL.Query().Get("name"), r.URL.Query().Get("dir")
		if prefix != "" {
			if err := snapshot.CheckName(prefix); err != nil {
				refuseAdmin(w, http.StatusBadRequest, err)
				return
			}
		}
		o := s.snapshotOptions()
		if filepath.IsAbs(dir) { // root asks, as for everything on this socket
			o.Dir = dir
		}
		info, err := s.saveSnapshot(r.Context(), o, snapshot.OnDemand, prefix)
		if err != nil {
			refuseAdmin(w, http.StatusUnprocessableEntity, err)
			return
		}
		answerAdmin(w, info)
	})
}

func (s *server) snapshotOptions() snapshot.Options {
	return snapshotOptions(s.plan.cfg.DataDir, s.plan.cfg.SnapshotDir, s.plan.cfg.NodeName)
}

// saveSnapshot makes one snapshot at a time.
func (s *server) saveSnapshot(ctx context.Context, o snapshot.Options, reason, prefix string) (snapshot.Info, error) {
	if !s.snapshots.TryLock() {
		return snapshot.Info{}, errors.New("another snapshot is being made; try again when it is there: `k3m snapshot list`")
	}
	defer s.snapshots.Unlock()
	return snapshot.Save(ctx, o, reason, prefix)
}

// keepSnapshots makes the scheduled ones until ctx ends.
func (s *server) keepSnapshots(ctx context.Context) error {
	if !happened(ctx, s.controlPlane.APIReady()) {
		return nil
	}
	o := s.snapshotOptions()
	if err := snapshot.Sweep(o); err != nil {
		s.log.Warn("what a snapshot left that was not finished can't be removed", "error", err)
	}
	if s.plan.cfg.SnapshotSchedule == "" {
		<-ctx.Done()
		return nil
	}
	return snapshot.Schedule{
		Options: o, Spec: s.plan.cfg.SnapshotSchedule, Retention: s.plan.cfg.SnapshotRetention,
		Save: func(ctx context.Context, reason string) (snapshot.Info, error) {
			return s.saveSnapshot(ctx, o, reason, "")
		},
		Health: s.health, Logger: s.log,
	}.Run(ctx)
}
