package datastore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // to look into the database as a stranger
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/k3m-io/k3m/core/datastore"
)

func open(tb testing.TB, dir string) (*datastore.Store, *clientv3.Client) {
	tb.Helper()
	store, err := datastore.Open(context.Background(), datastore.Options{
		File:   filepath.Join(dir, "server", "db", "state.db"),
		Socket: filepath.Join(dir, "s", "kine.sock"),
	})
	if err != nil {
		tb.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{store.Endpoint}, DialTimeout: 5 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	return store, client
}

// end closes both.
func end(tb testing.TB, store *datastore.Store, client *clientv3.Client) {
	tb.Helper()
	if err := client.Close(); err != nil {
		tb.Error(err)
	}
	store.Close()
}

// create does what the API server does to create an object.
func create(tb testing.TB, client *clientv3.Client, key, value string) bool {
	tb.Helper()
	resp, err := client.Txn(context.Background()).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, value)).
		Commit()
	if err != nil {
		tb.Fatal(err)
	}
	return resp.Succeeded
}

func TestDataOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "server", "db", "state.db")
	if exists, err := datastore.Exists(file); exists || err != nil {
		t.Fatalf("exists before: %v, %v", exists, err)
	}
	store, client := open(t, dir)
	if !create(t, client, "/registry/a", "1") {
		t.Fatal("not created")
	}
	if create(t, client, "/registry/a", "2") {
		t.Error("created twice")
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(file + suffix); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want 0600", file+suffix, info, err)
		}
	}
	start := time.Now()
	end(t, store, client)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("close took %v", took)
	}
	if exists, err := datastore.Exists(file); !exists || err != nil {
		t.Fatalf("exists after: %v, %v", exists, err)
	}

	store, client = open(t, dir)
	defer end(t, store, client)
	resp, err := client.Get(t.Context(), "/registry/a")
	if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "1" {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestWatchHearsOfAWriteAtOnce(t *testing.T) {
	store, client := open(t, t.TempDir())
	defer end(t, store, client)
	events := client.Watch(t.Context(), "/registry/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-events // created
	// kine's poller takes the first notification after a start as a reason to prepare its
	// statement, and hears of what was written with the next.
	create(t, client, "/registry/first", "x")
	create(t, client, "/registry/second", "x")
	for heard := 0; heard < 2; {
		heard += len((<-events).Events)
	}
	var total time.Duration
	const writes = 20
	for i := range writes {
		start := time.Now()
		create(t, client, fmt.Sprint("/registry/", i), "x")
		for e := range events {
			if len(e.Events) > 0 {
				break
			}
		}
		total += time.Since(start)
	}
	// Far below the poll interval of 5 s; the bound is for a machine under load.
	if mean := total / writes; mean > 250*time.Millisecond {
		t.Errorf("an event arrives %v after the write began", mean)
	} else {
		t.Logf("an event arrives %v after the write began", mean)
	}
}

func TestSynchronousFull(t *testing.T) {
	// The driver's own connections are out of reach; the name that they are opened with is not.
	name := datastore.DataSourceName(filepath.Join(t.TempDir(), "a%20strange?#name.db"))
	db, err := sql.Open("sqlite3", name)
	if err != nil {
		t.Fatal(err)
	}
	defer closeDB(t, db)
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "busy_timeout": "30000"} {
		var got string
		if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", pragma, got, err, want)
		}
	}
	var file string
	if err := db.QueryRowContext(t.Context(), "SELECT file FROM pragma_database_list").Scan(&file); err != nil || !strings.HasSuffix(file, "a%20strange?#name.db") {
		t.Errorf("file %q, %v", file, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	corrupt := filepath.Join(dir, "corrupt.db")
	if err := os.WriteFile(corrupt, []byte(strings.Repeat("not a database ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opts datastore.Options
		want string
	}{
		"a corrupt file": {
			datastore.Options{File: corrupt, Socket: filepath.Join(dir, "s", "kine.sock")},
			"file is not a database): k3m leaves it as it is and does not start on it; `k3m snapshot list` shows what can be restored",
		},
		"a path too long for a socket": {
			datastore.Options{File: filepath.Join(dir, "x.db"), Socket: filepath.Join(dir, strings.Repeat("x", 100), "kine.sock")},
			"longer than 107 bytes: choose a shorter --run-dir",
		},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			store, err := datastore.Open(t.Context(), c.opts)
			if err == nil {
				store.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestBloatedFileIsRewritten(t *testing.T) {
	dir := t.TempDir()
	store, client := open(t, dir)
	end(t, store, client)
	file := filepath.Join(dir, "server", "db", "state.db")
	db, err := sql.Open("sqlite3", datastore.DataSourceName(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"CREATE TABLE bloat (x)", "INSERT INTO bloat VALUES (zeroblob(70000000))", "DROP TABLE bloat", "PRAGMA wal_checkpoint(TRUNCATE)",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	closeDB(t, db)
	if info, err := os.Stat(file); err != nil || info.Size() < 70_000_000 {
		t.Fatalf("size before: %v, %v", info.Size(), err)
	}
	store, client = open(t, dir)
	end(t, store, client)
	// Not the file's size: a connection that is still busy may write it back after the end.
	if db, err = sql.Open("sqlite3", datastore.DataSourceName(file)); err != nil {
		t.Fatal(err)
	}
	defer closeDB(t, db)
	var size int64
	if err := db.QueryRowContext(t.Context(), "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()").Scan(&size); err != nil || size > 1_000_000 {
		t.Errorf("size after: %v, %v", size, err)
	}
}

func closeDB(t *testing.T, db *sql.DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

const holderEnv = "K3M_TEST_HOLD_LOCK"

// TestMain holds a lock, or makes a storm, when another test starts this executable for that.
func TestMain(m *testing.M) {
	if file := os.Getenv(holderEnv); file != "" {
		if _, err := datastore.AcquireLock(file); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Println("locked")
		select {} // until it is killed
	}
	if dir, sync, ok := strings.Cut(os.Getenv(stormEnv), ":"); ok {
		fmt.Println("failed:", storm(dir, datastore.Sync(sync)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestLockIsHeldByOneProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "server", "lock")
	holder := exec.CommandContext(t.Context(), os.Args[0])
	holder.Env = append(os.Environ(), holderEnv+"="+file)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
	line := make([]byte, 7)
	if _, err := out.Read(line); err != nil || string(line) != "locked\n" {
		t.Fatalf("holder says %q, %v", line, err)
	}

	_, err = datastore.AcquireLock(file)
	var locked *datastore.LockedError
	if !errors.As(err, &locked) || locked.PID != holder.Process.Pid {
		t.Fatalf("error %v, want process %d", err, holder.Process.Pid)
	}
	if !strings.Contains(err.Error(), fmt.Sprintf("another k3m server (process %d)", holder.Process.Pid)) {
		t.Errorf("error %q", err)
	}

	// However the holder dies, the lock is free.
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait()
	lock, err := datastore.AcquireLock(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}

// BenchmarkCommit is one create after the other, as the API server's at boot.
func BenchmarkCommit(b *testing.B) {
	store, client := open(b, b.TempDir())
	defer end(b, store, client)
	value := strings.Repeat("x", 1000)
	for i := 0; b.Loop(); i++ {
		create(b, client, fmt.Sprint("/registry/", i), value)
	}
}

// BenchmarkCommitFromMany is what controllers do together, with 16 at a time.
func BenchmarkCommitFromMany(b *testing.B) {
	store, client := open(b, b.TempDir())
	defer end(b, store, client)
	value := strings.Repeat("x", 1000)
	var n atomic.Int64
	b.SetParallelism(8) // times GOMAXPROCS
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			create(b, client, fmt.Sprint("/registry/", n.Add(1)), value)
		}
	})
}
