package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRemoveBut keeps what --keep-data keeps, and what is nobody's of k3m.
func TestRemoveBut(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"server/db/state.db", "server/node-token", "plugins/plugins.lock", "components/cni.flannel/state/x", "node.json",
		"agent/images/app.tar", "agent/node-password", "agent/kubelet/pods/x", "agent/containerd/y", "storage/pvc-1/data", "mine/notes",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func() string {
		var files []string
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				files = append(files, strings.TrimPrefix(path, dir+"/"))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(files, " ")
	}
	if err := removeBut(dir, madeInDataDir, keptData); err != nil {
		t.Fatal(err)
	}
	const kept = "agent/images/app.tar agent/node-password mine/notes node.json plugins/plugins.lock server/db/state.db server/node-token storage/pvc-1/data"
	if got := left(); got != kept {
		t.Errorf("left are %s", got)
	}
	if err := removeBut(dir, madeInDataDir, nil); err != nil {
		t.Fatal(err)
	}
	if got := left(); got != "mine/notes node.json storage/pvc-1/data" {
		t.Errorf("left are %s", got)
	}
	if err := removeBut(dir, madeInDataDir, keptData); err != nil { // a second try
		t.Error(err)
	}
}
