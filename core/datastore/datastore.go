package datastore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/server"
	_ "github.com/mattn/go-sqlite3" // the driver that kine uses, for probe
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
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
	// The API server asks for compaction itself, every five minutes, as it does of etcd.
	compactTimeout   = 5 * time.Second
	compactMinRetain = 1000
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

// Options say where a datastore is.
type Options struct {
	// File is the database: <data-dir>/server/db/state.db.
	File string
	// Socket is the unix socket to listen on: <run-dir>/server/kine.sock. Its directory is made
	// with mode 0700; the path must be at most 107 bytes long.
	Socket string
}

// Store is a running datastore.
type Store struct {
	// Endpoint is what the API server's --etcd-servers takes.
	Endpoint string

	grpc    *grpc.Server
	stop    context.CancelFunc
	running sync.WaitGroup
	served  chan error
}

// Exists says whether a database file is there, that is whether a cluster was started before.
func Exists(file string) (bool, error) {
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at datastore: %w", err)
	}
	// A crash between creating the file and writing the schema leaves it empty.
	return info.Size() > 0, nil
}

// Open opens or creates the database and serves it. The caller holds the Lock, and ends with
// Close, after the API server has stopped.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if len(opts.Socket) > maxSocketPath {
		return nil, fmt.Errorf("open datastore: socket path %s is longer than %d bytes: choose a shorter --run-dir", opts.Socket, maxSocketPath)
	}
	for _, dir := range []string{filepath.Dir(opts.File), filepath.Dir(opts.Socket)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open datastore: %w", err)
		}
	}
	if err := restrict(opts.File); err != nil {
		return nil, fmt.Errorf("open datastore: %w", err)
	}
	bloated, err := probe(ctx, opts.File)
	if err != nil {
		return nil, fmt.Errorf("open datastore %s: %w: if the file is damaged, restore it from a backup", opts.File, err)
	}

	// kine ends what it started when this context does, not when ctx does: it must
	// outlive the API server.
	kineCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Store{Endpoint: "unix://" + opts.Socket, stop: stop, served: make(chan error, 1)}
	_, backend, err := sqlite.New(kineCtx, &s.running, &drivers.Config{
		DataSourceName:   dataSourceName(opts.File) + startupVacuum(bloated),
		CompactTimeout:   compactTimeout,
		CompactMinRetain: compactMinRetain,
		CompactBatchSize: compactBatchSize,
		PollBatchSize:    pollBatchSize,
		PollInterval:     pollInterval,
	})
	if err == nil {
		err = backend.Start(kineCtx)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open datastore %s: %w", opts.File, err)
	}

	listener, err := listen(ctx, opts.Socket)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open datastore: %w", err)
	}
	s.grpc = grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: embed.DefaultGRPCKeepAliveMinTime}),
		grpc.MaxRecvMsgSize(maxReceiveBytes),
		grpc.MaxSendMsgSize(maxSendBytes),
		// The API server opens a connection for each of its some 70 resources, most of them silent.
		grpc.ReadBufferSize(connectionBuffer),
		grpc.SharedWriteBuffer(true),
	)
	server.New(&oneWriter{Backend: backend}, "unix", notifyInterval, emulatedEtcdVersion).Register(s.grpc)
	s.running.Go(func() { s.served <- s.grpc.Serve(listener) })
	return s, nil
}

// Failed delivers the reason when the datastore stops serving by itself.
func (s *Store) Failed() <-chan error { return s.served }

// Close stops serving and closes the database, and waits for both. Requests may still end; the
// API server, which has stopped, leaves watches behind that would not.
func (s *Store) Close() {
	if s.grpc != nil {
		force := time.AfterFunc(stopTimeout, s.grpc.Stop)
		s.grpc.GracefulStop()
		force.Stop()
	}
	s.stop()
	s.running.Wait()
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

// probe opens the database once, as kine tries for five minutes before it says what is wrong,
// and says whether most of a big file is free space.
func probe(ctx context.Context, file string) (bloated bool, err error) {
	db, err := sql.Open("sqlite3", dataSourceName(file))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var total, free, size int64
	const question = "SELECT page_count, freelist_count, page_size FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"
	if err := db.QueryRowContext(ctx, question).Scan(&total, &free, &size); err != nil {
		return false, err
	}
	return free*size > vacuumFrom && free > total/2, nil
}

// vacuumFrom is how many free bytes make a VACUUM worth the time that it adds to a start.
const vacuumFrom = 64 << 20

// startupVacuum is the parameter that tells kine whether to rewrite the whole database before it
// serves, as it would at each start: some seconds for a big one, during which there is no API.
func startupVacuum(bloated bool) string {
	if bloated {
		return ""
	}
	return "&_kine_disable_startup_vacuum=true"
}

// dataSourceName is the sqlite driver's name of file. The path is escaped for SQLite's URI
// form, in which ?, # and % mean something. kine's own default has cache=shared too, but in a
// form that the driver drops; here it would take effect, and replace waiting for locks by errors.
func dataSourceName(file string) string {
	params := url.Values{
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_busy_timeout": {"30000"}, // ms
		"_txlock":       {"immediate"},
		// Statements that each connection keeps prepared; kine uses about twenty.
		"_stmt_cache_size": {"20"},
	}
	return (&url.URL{Scheme: "file", Path: file, OmitHost: true, RawQuery: params.Encode()}).String()
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
