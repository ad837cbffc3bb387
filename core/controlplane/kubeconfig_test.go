package controlplane

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/k3m-io/k3m/core/pki"
)

func TestKubeconfigIsWrittenWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "k3m.yaml")
	k := kubeconfig{path: path, mode: 0o640, user: "admin", pair: pki.Pair{CertPEM: []byte("certificate"), KeyPEM: []byte("key")}}
	// write says whether the file is another one afterwards.
	write := func(k kubeconfig, server string) bool {
		t.Helper()
		before, _ := os.Stat(path)
		if err := k.write(server, []byte("authority")); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(path)
		if err != nil || after.Mode().Perm() != k.mode {
			t.Fatalf("%v, %v; want mode %v", after, err, k.mode)
		}
		return before == nil || !os.SameFile(before, after)
	}
	const server = "https://127.0.0.1:6443"
	if !write(k, server) {
		t.Error("not written at first")
	}
	if write(k, server) {
		t.Error("written again although nothing changed")
	}
	if !write(k, "https://127.0.0.1:6444") {
		t.Error("not written with another server")
	}
	k.mode = 0o600
	if !write(k, "https://127.0.0.1:6444") {
		t.Error("not written with another mode")
	}
	if os.Geteuid() == 0 {
		k.gid = 12345
		if !write(k, "https://127.0.0.1:6444") {
			t.Error("not written for another group")
		}
		if info, err := os.Stat(path); err != nil || info.Sys().(*syscall.Stat_t).Gid != 12345 {
			t.Errorf("it is not the group's: %v", err)
		}
		if write(k, "https://127.0.0.1:6444") {
			t.Error("written again although the group is the same")
		}
	}
	if err := os.WriteFile(path, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !write(k, "https://127.0.0.1:6444") {
		t.Error("a broken file was left")
	}
}
