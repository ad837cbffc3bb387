package datastore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/logstructured"
	"github.com/k3s-io/kine/pkg/logstructured/sqllog"
	"github.com/k3s-io/kine/pkg/server"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/k3m-io/k3m/core/health"
)

// What kine is told. Its own defaults (v0.17.5, pkg/app), but for the poll.
const (
	// pollInterval is how often kine looks for writes of other processes. There are none
	// (see Lock), and its own wake the poller at once, so this only bounds how long a
	// failed read of the log stays unnoticed.
	pollInterval  = 5 * time.Second
	pollBatchSize = 500
	// notifyInterval is how often a watch without events is told the current revision. The API
	// server asks by itself when a read has to be fresh; this is so that the bookmarks which it sends
	// its own watchers each minute move on, and none is left behind by a compaction. Each of some
	// 65 watches has a timer of its own, so a shorter time is what an idle node mostly does.
	notifyInterval = time.Minute
	// The API server asks for compaction itself, every five minutes, as it does of etcd; see
	// upkeep for what happens when more is written than that is good for.
	compactTimeout = 5 * time.Second
	// compactMinRetain are the youngest revisions, which are kept in any case. kine's default of
	// 1000 may be gigabytes of big objects.
	compactMinRetain = 100
	compactBatchSize = 1000
	// emulatedEtcdVersion tells the API server that watch progress notifications work.
	emulatedEtcdVersion = "3.6.11"
)

const (
	// connectionBuffer is what each connection reads into; 32 KiB is gRPC's default.
	connectionBuffer = 4 << 10
	// maxReceiveBytes is etcd's limit on a request, and room for gRPC around it.
	maxReceiveBytes = embed.DefaultMaxRequestBytes + 512<<10
	maxSendBytes    = math.MaxInt32
	// stopTimeout is how long Close waits for requests; each is a matter of milliseconds.
	stopTimeout   = 200 * time.Millisecond
	maxSocketPath = 107 // sun_path, less its final zero: unix(7)
)

// Options say where a datastore is and how it is kept.
type Options struct {
	// File is the database: <data-dir>/server/db/state.db.
	File string
	// Socket is the unix socket to listen on: <run-dir>/server/kine.sock. Its directory is made
	// with mode 0700; the path must be at most 107 bytes long.
	Socket string
	// Sync says when a write is acknowledged; the zero value is SyncFull.
	Sync Sync
	// Health hears when nothing can be written, and when that is over; may be nil.
	Health *health.Board
	// Logger hears of what was found and mended; nil is slog's default.
	Logger *slog.Logger
}

// Store is a running datastore.
type Store struct {
	// Endpoint is what the API server's --etcd-servers takes.
	Endpoint string

	opts    Options
	grpc    *grpc.Server
	stop    context.CancelFunc
	running sync.WaitGroup
	upkeep  *upkeep
	served  chan error
}

// Exists says whether a cluster was started before: whether a database is there, or was. Open
// refuses one that is gone.
func Exists(file string) (bool, error) {
	for _, name := range []string{file, clusterMark(file)} {
		info, err := os.Stat(name)
		if err == nil && info.Size() > 0 { // a crash between creating the file and writing the schema leaves it empty
			return true, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, fmt.Errorf("look at datastore: %w", err)
		}
	}
	return false, nil
}

// Open opens or creates the database and serves it. A DamagedError says that the file can't be
// used; it is left as it is. The caller holds the Lock, and ends with Close, after the API server has
// stopped.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if len(opts.Socket) > maxSocketPath {
		return nil, fmt.Errorf("open datastore: socket path %s is longer than %d bytes: choose a shorter --run-dir", opts.Socket, maxSocketPath)
	}
	for _, dir := range []string{filepath.Dir(opts.File), filepath.Dir(opts.Socket)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open datastore: %w", err)
		}
	}
	if err := prepare(ctx, opts); err != nil {
		return nil, fmt.Errorf("open datastore: %w", err)
	}

	// kine ends what it started when this context does, not when ctx does: it must
	// outlive the API server.
	kineCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Store{Endpoint: "unix://" + opts.Socket, opts: opts, stop: stop, served: make(chan error, 1)}
	backend, err := s.start(kineCtx)
	if err != nil {
		s.end()
		return nil, fmt.Errorf("open datastore %s: %w", opts.File, err)
	}

	listener, err := listen(ctx, opts.Socket)
	if err != nil {
		s.end()
		return nil, fmt.Errorf("open datastore: %w", err)
	}
	s.grpc = grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: embed.DefaultGRPCKeepAliveMinTime}),
		grpc.MaxRecvMsgSize(maxReceiveBytes),
		grpc.MaxSendMsgSize(maxSendBytes),
		// The API server opens a connection for each of its some 70 resources, most of them silent.
		grpc.ReadBufferSize(connectionBuffer),
	)
	server.New(backend, "unix", notifyInterval, emulatedEtcdVersion).Register(s.grpc)
	s.running.Go(func() { s.served <- s.grpc.Serve(listener) })
	return s, nil
}

// start starts kine, and its upkeep, on a database that prepare has looked at.
func (s *Store) start(ctx context.Context) (server.Backend, error) {
	cfg := &drivers.Config{
		// Checkpoints and vacuums are upkeep's: kine's own wait for readers, or rewrite everything.
		DataSourceName:   dataSourceName(s.opts.File, s.opts.Sync) + "&_kine_disable_startup_vacuum=true&_kine_disable_compact_wal_checkpoint=true",
		CompactTimeout:   compactTimeout,
		CompactMinRetain: compactMinRetain,
		CompactBatchSize: compactBatchSize,
		PollBatchSize:    pollBatchSize,
		PollInterval:     pollInterval,
	}
	_, dialect, err := sqlite.NewVariant(ctx, &s.running, "sqlite3", cfg)
	if err != nil {
		return nil, err
	}
	log := &honestLog{Log: sqllog.New(dialect, &s.running, cfg), disk: &disk{file: s.opts.File, health: s.opts.Health, log: s.opts.Logger}}
	backend := logstructured.New(log)
	if err := backend.Start(ctx); err != nil {
		return nil, err
	}
	if err := markCluster(s.opts.File); err != nil {
		return nil, err
	}
	w := &oneWriter{Backend: backend}
	s.upkeep = newUpkeep(ctx, w, log, dialect.DB, s.opts)
	w.upkeep = s.upkeep
	s.running.Go(s.upkeep.run)
	return w, nil
}

// Failed delivers the reason when the datastore stops serving by itself.
func (s *Store) Failed() <-chan error { return s.served }

// Close stops serving and closes the database, and waits for both. Requests may still end; the
// API server, which has stopped, leaves watches behind that would not.
func (s *Store) Close() {
	s.end()
	if err := leaveClean(s.opts); err != nil {
		s.opts.Logger.Warn("the datastore could not be put in order; the next start checks all of it", "error", err)
	}
}

func (s *Store) end() {
	if s.grpc != nil {
		force := time.AfterFunc(stopTimeout, s.grpc.Stop)
		s.grpc.GracefulStop()
		force.Stop()
	}
	s.stop()
	s.running.Wait()
}

func listen(ctx context.Context, socket string) (net.Listener, error) {
	// The lock is ours, so a socket that is still there belongs to a server that is dead.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}
