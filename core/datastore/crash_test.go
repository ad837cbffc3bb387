package datastore_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/k3m-io/k3m/core/datastore"
)

// TestKilledInAStorm kills a process that writes from many sides, again and again, on one file: five
// times, or as often as K3M_CRASHES says. Nothing that was acknowledged in any round is ever lost.
func TestKilledInAStorm(t *testing.T) {
	rounds := 5
	if text := os.Getenv("K3M_CRASHES"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, sync := range []datastore.Sync{datastore.SyncFull, datastore.SyncNormal} {
		t.Run(string(sync), func(t *testing.T) {
			dir := t.TempDir()
			var acknowledged []string
			for round := range rounds {
				acknowledged = append(acknowledged, killed(t, dir, sync, round)...)
				intact(t, dir, acknowledged)
			}
			t.Logf("%d crashes, %d acknowledged writes, none lost", rounds, len(acknowledged))
		})
	}
}

// killed runs a storm until it is killed, and returns what was acknowledged.
func killed(t *testing.T, dir string, sync datastore.Sync, round int) (keys []string) {
	t.Helper()
	writer := exec.CommandContext(t.Context(), os.Args[0])
	writer.Env = append(os.Environ(), stormEnv+"="+dir+":"+string(sync), prefixEnv+"="+strconv.Itoa(round))
	writer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := writer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	enough := 50 + 41*(round%9)
	said := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if key, ok := strings.CutPrefix(lines.Text(), "acknowledged "); ok {
			keys = append(keys, key)
		} else {
			said = lines.Text()
		}
		if len(keys) == enough {
			if err := writer.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = writer.Wait() // it was killed
	if len(keys) < enough {
		t.Fatalf("round %d: the storm ended after %d keys: %s", round, len(keys), said)
	}
	return keys
}

// intact checks the file, opens it, and looks for the keys.
func intact(t *testing.T, dir string, keys []string) {
	t.Helper()
	file := filepath.Join(dir, "disk", "db", "state.db")
	if err := datastore.Check(t.Context(), file, true); err != nil {
		t.Fatal(err)
	}
	store, err := datastore.Open(t.Context(), datastore.Options{File: file, Socket: filepath.Join(dir, "s2", "kine.sock")})
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{store.Endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, store, client)
	resp, err := client.Get(t.Context(), "/registry/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, kv := range resp.Kvs {
		found[string(kv.Key)] = true
	}
	for _, key := range keys {
		if !found[key] {
			t.Fatalf("%s was acknowledged and is lost", key)
		}
	}
}
