package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/k3m-io/k3m/core/datastore"
	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/snapshot"
	"github.com/k3m-io/k3m/core/supervisor/token"
)

// machine is a data directory with a cluster's keys, and maybe its datastore in use.
type machine struct {
	dir  string
	opts snapshot.Options
}

// newMachine has no cluster yet.
func newMachine(t *testing.T, snapshots string) *machine {
	t.Helper()
	dir := t.TempDir()
	return &machine{dir, snapshot.Options{
		Dir: snapshots, Node: "edge-1", Version: "v1+k3m1",
		Database: filepath.Join(dir, "server", "db", "state.db"), TLSDir: filepath.Join(dir, "server", "tls"),
		TokenFile: filepath.Join(dir, "server", "node-token"), NodePasswordFile: filepath.Join(dir, "agent", "node-password"),
	}}
}

// found makes the keys of a new cluster.
func (m *machine) found(t *testing.T) {
	t.Helper()
	authorities, err := pki.Ensure(m.opts.TLSDir, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Ensure(m.opts.TokenFile, "a-secret-of-the-cluster", authorities.Server.PEM); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(m.opts.NodePasswordFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.opts.NodePasswordFile, []byte("a-password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// open starts the datastore until stop is called.
func (m *machine) open(t *testing.T) (client *clientv3.Client, stop func()) {
	t.Helper()
	store, err := datastore.Open(t.Context(), datastore.Options{File: m.opts.Database, Socket: filepath.Join(t.TempDir(), "kine.sock")})
	if err != nil {
		t.Fatal(err)
	}
	if client, err = clientv3.New(clientv3.Config{Endpoints: []string{store.Endpoint}}); err != nil {
		t.Fatal(err)
	}
	return client, func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		store.Close()
	}
}

func put(t *testing.T, client *clientv3.Client, key, value string) int64 {
	t.Helper()
	resp, err := client.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	if len(resp.Kvs) > 0 {
		last = resp.Kvs[0].ModRevision
	}
	done, err := client.Txn(t.Context()).If(clientv3.Compare(clientv3.ModRevision(key), "=", last)).
		Then(clientv3.OpPut(key, value)).Else(clientv3.OpGet(key)).Commit()
	if err != nil || !done.Succeeded {
		t.Fatalf("put %s: %v, %v", key, done, err)
	}
	return done.Header.Revision
}

func get(t *testing.T, client *clientv3.Client, key string) string {
	t.Helper()
	resp, err := client.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

func save(t *testing.T, m *machine, prefix string) snapshot.Info {
	t.Helper()
	info, err := snapshot.Save(t.Context(), m.opts, snapshot.OnDemand, prefix)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestRestoreOnTheSameMachine(t *testing.T) {
	m := newMachine(t, filepath.Join(t.TempDir(), "snapshots"))
	m.found(t)
	client, stop := m.open(t)
	put(t, client, "/registry/a", "before")
	put(t, client, "/registry/deleted-later", "x")

	// Others write all the while.
	ctx, cancel := context.WithCancel(t.Context())
	wrote := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			key := fmt.Sprint("/registry/noise/", n)
			if _, err := client.Txn(context.Background()).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).Then(clientv3.OpPut(key, "x")).Commit(); err != nil {
				break
			}
		}
		wrote <- n
	}()
	info := save(t, m, "")
	cancel()
	t.Logf("%d writes meanwhile", <-wrote)
	if !strings.HasPrefix(info.Name, "on-demand-edge-1-") || info.Bytes == 0 || info.Revision == 0 || info.AuthorityHash == "" {
		t.Errorf("saved %+v", info)
	}
	for name, want := range map[string]os.FileMode{info.File: 0o600, m.opts.Dir: 0o700} {
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	if checked, err := snapshot.Check(t.Context(), m.opts, info.Name); err != nil || checked.Name != info.Name {
		t.Errorf("check: %v, %v", checked, err)
	}
	all, err := snapshot.List(m.opts)
	if err != nil || len(all) != 1 || all[0] != info {
		t.Errorf("list: %+v, %v", all, err)
	}

	last := put(t, client, "/registry/a", "after")
	stop()
	done, err := snapshot.Restore(t.Context(), m.opts, info.Name, "")
	if err != nil {
		t.Fatal(err)
	}
	if old, err := os.Stat(filepath.Join(done.Replaced, "state.db")); err != nil || old.Size() == 0 || done.Certificates {
		t.Errorf("the old datastore: %v, %v; %+v", old, err, done)
	}
	client, stop = m.open(t)
	defer stop()
	if got := get(t, client, "/registry/a"); got != "before" {
		t.Errorf("restored %q", got)
	}
	if got := get(t, client, "/registry/deleted-later"); got != "x" {
		t.Errorf("restored %q", got)
	}
	if now := put(t, client, "/registry/b", "new"); now <= last {
		t.Errorf("revision %d after the restore, %d was given out before it", now, last)
	}
	// Who watched before the restore hears that what it saw is gone, and lists again.
	watch := <-client.Watch(t.Context(), "/registry/", clientv3.WithPrefix(), clientv3.WithRev(last))
	if watch.CompactRevision == 0 || watch.Err() == nil {
		t.Errorf("a watch from before: %+v", watch)
	}
	if err := snapshot.Delete(m.opts, info.Name); err != nil {
		t.Error(err)
	}
	if _, err := snapshot.Find(m.opts, info.Name); !errors.Is(err, snapshot.ErrNotFound) {
		t.Errorf("found after it was deleted: %v", err)
	}
}

func TestRestoreOnAnotherMachine(t *testing.T) {
	old := newMachine(t, filepath.Join(t.TempDir(), "snapshots"))
	old.found(t)
	client, stop := old.open(t)
	put(t, client, "/registry/a", "1")
	stop()
	info := save(t, old, "moving")

	for name, c := range map[string]struct {
		token string
		want  string
	}{
		"without a token":     {"", "give the token"},
		"with another's":      {"some-other-secret", "does not open the snapshot's certificates"},
		"with the secret":     {"a-secret-of-the-cluster", ""},
		"with the whole file": {read(t, old.opts.TokenFile), ""},
	} {
		t.Run(name, func(t *testing.T) {
			fresh := newMachine(t, filepath.Join(t.TempDir(), "none"))
			done, err := snapshot.Restore(t.Context(), fresh.opts, info.File, c.token)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v", err)
				}
				if _, err := os.Stat(fresh.opts.Database); err == nil {
					t.Error("the datastore is there all the same")
				}
				return
			}
			if err != nil || !done.Certificates || done.Replaced != "" {
				t.Fatalf("%+v, %v", done, err)
			}
			for _, file := range append(pki.Files(""), "x") {
				if file != "x" && read(t, filepath.Join(old.opts.TLSDir, file)) != read(t, filepath.Join(fresh.opts.TLSDir, file)) {
					t.Errorf("%s differs", file)
				}
			}
			if read(t, old.opts.TokenFile) != read(t, fresh.opts.TokenFile) || read(t, old.opts.NodePasswordFile) != read(t, fresh.opts.NodePasswordFile) {
				t.Error("token or password differ")
			}
			if _, err := pki.Ensure(fresh.opts.TLSDir, true); err != nil {
				t.Error(err)
			}
			client, stop := fresh.open(t)
			defer stop()
			if got := get(t, client, "/registry/a"); got != "1" {
				t.Errorf("restored %q", got)
			}
		})
	}

	t.Run("into another cluster", func(t *testing.T) {
		other := newMachine(t, filepath.Join(t.TempDir(), "none"))
		other.found(t)
		if _, err := snapshot.Restore(t.Context(), other.opts, info.File, "a-secret-of-the-cluster"); err == nil || !strings.Contains(err.Error(), "another cluster") {
			t.Errorf("error %v", err)
		}
	})
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestBrokenSnapshotsAreRefused restores from files that are not what was saved.
func TestBrokenSnapshotsAreRefused(t *testing.T) {
	m := newMachine(t, filepath.Join(t.TempDir(), "snapshots"))
	m.found(t)
	client, stop := m.open(t)
	for i := range 200 {
		put(t, client, fmt.Sprint("/registry/", i), strings.Repeat(fmt.Sprint(i), 300))
	}
	stop()
	info := save(t, m, "")
	whole := []byte(read(t, info.File))
	for name, broken := range map[string][]byte{
		"empty":                 {},
		"no archive":            []byte("not a snapshot at all"),
		"half":                  whole[:len(whole)/2],
		"without its end":       whole[:len(whole)-3],
		"a bit has changed":     append(append(bytes.Clone(whole[:len(whole)*3/4]), whole[len(whole)*3/4]^1), whole[len(whole)*3/4+1:]...),
		"the start has changed": append([]byte("xxxx"), whole[4:]...),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(m.opts.Dir, "broken"+".tar.zst")
			if err := os.WriteFile(file, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			before := read(t, m.opts.Database)
			if done, err := snapshot.Restore(t.Context(), m.opts, "broken", ""); err == nil {
				t.Errorf("restored %+v", done)
			} else {
				t.Log(err)
			}
			if read(t, m.opts.Database) != before {
				t.Error("the datastore was touched")
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(m.opts.Database), ".restore-*")); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
	if left, _ := filepath.Glob(filepath.Join(m.opts.Dir, ".partial-*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestDamagedDatastoreIsNotSaved(t *testing.T) {
	m := newMachine(t, filepath.Join(t.TempDir(), "snapshots"))
	m.found(t)
	client, stop := m.open(t)
	for i := range 200 {
		put(t, client, fmt.Sprint("/registry/", i), strings.Repeat("x", 1000))
	}
	stop()
	f, err := os.OpenFile(m.opts.Database, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 4*4096), 20*4096); err != nil {
		t.Fatal(err)
	}
	f.Close()
	info, err := snapshot.Save(t.Context(), m.opts, snapshot.Scheduled, "")
	var damaged *datastore.DamagedError
	if !errors.As(err, &damaged) {
		t.Errorf("saved %+v, %v", info, err)
	}
	if all, err := snapshot.List(m.opts); err != nil || len(all) != 0 {
		t.Errorf("there are %v, %v", all, err)
	}
}

// FuzzOpen reads rubbish as snapshots.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	f.Add(snapshot.Specimen())
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(dir, "x.tar.zst")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		o := snapshot.Options{Dir: dir}
		if _, err := snapshot.List(o); err != nil {
			t.Error(err)
		}
		if _, err := snapshot.Check(t.Context(), o, "x"); err == nil {
			t.Error("it is sound, it says")
		}
	})
}
