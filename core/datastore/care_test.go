package datastore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/core/datastore"
	"github.com/k3m-io/k3m/core/health"
)

// TestFullDisk fills the disk under a datastore: writes are refused, with the reason and not as
// done, reads go on, and with space writes go on without a restart.
func TestFullDisk(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	file, board := filepath.Join(dir, "db", "state.db"), health.NewBoard()
	store, err := datastore.Open(t.Context(), datastore.Options{File: file, Socket: filepath.Join(t.TempDir(), "kine.sock"), Health: board})
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{store.Endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, store, client)
	value := strings.Repeat("x", 4000)
	create(t, client, "/registry/old", value)
	old := revision(t, client, "/registry/old")

	for round := range 3 {
		ballast := filepath.Join(dir, "ballast")
		fill(t, ballast)
		var acknowledged []string
		var refused error
		key := ""
		for i := 0; refused == nil; i++ {
			key = fmt.Sprintf("/registry/%d/%d", round, i)
			var resp *clientv3.TxnResponse
			resp, refused = client.Txn(t.Context()).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).Then(clientv3.OpPut(key, value)).Commit()
			if refused == nil && resp.Succeeded {
				acknowledged = append(acknowledged, key)
			}
		}
		if !strings.Contains(refused.Error(), "disk of the datastore is full") {
			t.Errorf("a create is refused with %v", refused)
		}
		_, err := client.Txn(t.Context()).If(clientv3.Compare(clientv3.ModRevision("/registry/old"), "=", old)).
			Then(clientv3.OpPut("/registry/old", value+"new")).Else(clientv3.OpGet("/registry/old")).Commit()
		if err == nil {
			t.Error("an update is not refused")
		}
		if c := board.Conditions(); len(c) != 1 || c[0].State != health.Failed || !strings.Contains(c[0].Fix, "free space") {
			t.Errorf("the board says %+v", c)
		}
		t.Logf("%d writes acknowledged until the disk was full", len(acknowledged))

		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		if !create(t, client, key, value) {
			t.Error("what was refused is there")
		}
		if c := board.Conditions(); len(c) != 0 {
			t.Errorf("with space, the board says %+v", c)
		}
		for _, key := range append(acknowledged, "/registry/old", key) {
			if resp, err := client.Get(t.Context(), key); err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != value {
				t.Errorf("%s: %v, %v", key, resp, err)
			}
		}
	}
	if err := datastore.Check(t.Context(), file, true); err != nil {
		t.Error(err)
	}
}

// fill writes a file until the file system has no byte left.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

func revision(t *testing.T, client *clientv3.Client, key string) int64 {
	t.Helper()
	resp, err := client.Get(t.Context(), key)
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("%s: %v, %v", key, resp, err)
	}
	return resp.Kvs[0].ModRevision
}

// TestGrowthIsBounded overwrites a few objects again and again, without any compaction by the API
// server, and then deletes much.
func TestGrowthIsBounded(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "server", "db", "state.db")
	store, client := open(t, dir)
	defer end(t, store, client)
	value := strings.Repeat("x", 500_000)
	written, largest := 0, int64(0)
	last := map[string]int64{}
	for i := range 500 {
		key := fmt.Sprint("/registry/events/", i%50)
		resp, err := client.Txn(t.Context()).If(clientv3.Compare(clientv3.ModRevision(key), "=", last[key])).
			Then(clientv3.OpPut(key, value)).Else(clientv3.OpGet(key)).Commit()
		if err != nil || !resp.Succeeded {
			t.Fatalf("write %d: %v, %v", i, resp, err)
		}
		last[key] = resp.Header.Revision
		written += 2 * len(value)
		if i%50 == 0 {
			size, err := datastore.Usage(file)
			if err != nil {
				t.Fatal(err)
			}
			largest = max(largest, size)
		}
	}
	// The live objects (50 MB, with what they were before), two windows of 32 MiB, and the log.
	if largest > 260_000_000 {
		t.Errorf("%d MB were written, and the file grew to %d MB", written/1e6, largest/1e6)
	}
	t.Logf("%d MB were written, and the files grew to %d MB", written/1e6, largest/1e6)
}

// TestSpaceIsGivenBack deletes what made the file big, and has it compacted as the API server would.
func TestSpaceIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "server", "db", "state.db")
	store, client := open(t, dir)
	defer end(t, store, client)
	value := strings.Repeat("x", 1_000_000)
	for i := range 100 {
		create(t, client, fmt.Sprint("/registry/big/", i), value)
	}
	for i := range 100 {
		key := fmt.Sprint("/registry/big/", i)
		resp, err := client.Txn(t.Context()).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision(t, client, key))).
			Then(clientv3.OpDelete(key)).Else(clientv3.OpGet(key)).Commit()
		if err != nil || !resp.Succeeded {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	for i := range 110 { // the last hundred revisions are kept
		create(t, client, fmt.Sprint("/registry/small/", i), "x")
	}
	before := size(t, file)
	if _, err := client.Compact(t.Context(), revision(t, client, "/registry/small/109")); err != nil {
		t.Fatal(err)
	}
	if after := size(t, file); before < 100_000_000 || after > 40_000_000 {
		t.Errorf("%d MB before, %d MB after", before/1e6, after/1e6)
	}
	// What has been compacted already is no error: the API server would log it.
	if _, err := client.Compact(t.Context(), 5); err != nil {
		t.Error(err)
	}
	if _, err := client.Compact(t.Context(), 1<<40); err == nil {
		t.Error("a compaction of the future is no error")
	}
}

// size is how many bytes the pages of a database take, wherever they are.
func size(t *testing.T, file string) (bytes int64) {
	t.Helper()
	db, err := sql.Open("sqlite3", datastore.DataSourceName(file))
	if err != nil {
		t.Fatal(err)
	}
	defer closeDB(t, db)
	if err := db.QueryRowContext(t.Context(), "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()").Scan(&bytes); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// TestDamageIsRefused damages a database in ways that disks do. It is never started on, nor changed.
func TestDamageIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, file string)
		crash  bool // no clean stop before: all of the file is checked
	}{
		"the header is overwritten": {damage: func(t *testing.T, file string) { overwrite(t, file, 0, "rubbish") }},
		"the schema is overwritten": {damage: func(t *testing.T, file string) { overwrite(t, file, 100, strings.Repeat("\xff", 300)) }},
		"a page in the middle is lost, after a crash": {crash: true, damage: func(t *testing.T, file string) {
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, file, info.Size()/2/4096*4096, strings.Repeat("\x00", 8192))
		}},
		"the end is cut off": {damage: func(t *testing.T, file string) {
			if err := os.Truncate(file, 8192); err != nil {
				t.Fatal(err)
			}
		}},
		"nothing is left": {damage: func(t *testing.T, file string) {
			if err := os.Truncate(file, 0); err != nil {
				t.Fatal(err)
			}
		}},
		"it is gone": {damage: func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "server", "db", "state.db")
			store, client := open(t, dir)
			for i := range 500 {
				create(t, client, fmt.Sprint("/registry/", i), strings.Repeat("x", 1000))
			}
			end(t, store, client)
			c.damage(t, file)
			if c.crash {
				if err := os.Remove(filepath.Join(filepath.Dir(file), "clean")); err != nil {
					t.Fatal(err)
				}
			}
			before, _ := os.ReadFile(file)
			opts := datastore.Options{File: file, Socket: filepath.Join(dir, "s", "kine.sock")}
			store, err := datastore.Open(t.Context(), opts)
			if err == nil {
				store.Close()
				t.Fatal("it was started on")
			}
			var damaged *datastore.DamagedError
			if !errors.As(err, &damaged) || !strings.Contains(err.Error(), "k3m snapshot restore NAME") {
				t.Errorf("refused with %v", err)
			}
			t.Log(err)
			if after, _ := os.ReadFile(file); string(after) != string(before) {
				t.Error("it was changed")
			}
			if exists, err := datastore.Exists(file); !exists || err != nil {
				t.Errorf("taken for a new cluster: %v, %v", exists, err)
			}
		})
	}
}

func overwrite(t *testing.T, file string, at int64, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
}

// TestOldFileIsConverted opens a file from before incremental vacuum.
func TestOldFileIsConverted(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "server", "db", "state.db")
	store, client := open(t, dir)
	create(t, client, "/registry/a", "1")
	end(t, store, client)
	if mode := autoVacuum(t, file, "2"); mode != 2 {
		t.Errorf("a new file has auto_vacuum %d", mode)
	}
	if mode := autoVacuum(t, file, "0"); mode != 0 {
		t.Fatalf("could not make an old file: auto_vacuum is %d", mode)
	}
	store, client = open(t, dir)
	defer end(t, store, client)
	if mode := autoVacuum(t, file, ""); mode != 2 {
		t.Errorf("opened, an old file has auto_vacuum %d", mode)
	}
	revision(t, client, "/registry/a")
}

// autoVacuum sets the mode, if one is given, and says what it is.
func autoVacuum(t *testing.T, file, set string) (mode int) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+file)
	if err != nil {
		t.Fatal(err)
	}
	defer closeDB(t, db)
	db.SetMaxOpenConns(1)
	if set != "" {
		if _, err := db.ExecContext(t.Context(), "PRAGMA journal_mode=DELETE; PRAGMA auto_vacuum="+set+"; VACUUM"); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.QueryRowContext(t.Context(), "PRAGMA auto_vacuum").Scan(&mode); err != nil {
		t.Fatal(err)
	}
	return mode
}

// TestNormalSync sees the option arrive at the connections.
func TestNormalSync(t *testing.T) {
	if name := datastore.DataSourceNameOf("x", datastore.SyncNormal); !strings.Contains(name, "_synchronous=NORMAL") {
		t.Error(name)
	}
}

// BenchmarkCheck is what a start after a crash costs, and after a stop.
func BenchmarkCheck(b *testing.B) {
	dir := b.TempDir()
	file := filepath.Join(dir, "server", "db", "state.db")
	store, client := open(b, dir)
	for i := range 20_000 {
		create(b, client, fmt.Sprint("/registry/pods/default/a-pod-", i), strings.Repeat("x", 2500))
	}
	end(b, store, client)
	info, err := os.Stat(file)
	if err != nil {
		b.Fatal(err)
	}
	for _, all := range []bool{false, true} {
		b.Run(fmt.Sprintf("all=%v,%dMB", all, info.Size()/1e6), func(b *testing.B) {
			for b.Loop() {
				if err := datastore.Check(context.Background(), file, all); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestManyAtOnceAfterARestart reads and writes from many sides at once, as the API server does when it
// starts on a datastore that is there: opening a connection must not need the right to write.
func TestManyAtOnceAfterARestart(t *testing.T) {
	dir := t.TempDir()
	store, client := open(t, dir)
	for i := range 50 {
		create(t, client, fmt.Sprint("/registry/", i), strings.Repeat("x", 1000))
	}
	end(t, store, client)
	store, client = open(t, dir)
	defer end(t, store, client)

	// Somebody writes for long: a transaction that has begun and does not end.
	db, err := sql.Open("sqlite3", datastore.DataSourceName(filepath.Join(dir, "server", "db", "state.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer closeDB(t, db)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var readers errgroup.Group
	for range 40 {
		readers.Go(func() error {
			for range 5 {
				if _, err := client.Get(ctx, "/registry/", clientv3.WithPrefix()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := readers.Wait(); err != nil {
		t.Errorf("reads wait for a writer: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
}
