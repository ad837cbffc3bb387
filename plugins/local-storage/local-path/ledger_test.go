package localpath

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLedgerOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	l, err := openLedger(dir)
	must(t, err)
	e := entry{Base: "/b", Path: "p", Inode: inode{1, 2}, Namespace: "n", Claim: "c", ClaimUID: "u"}
	must(t, l.put("pvc-1", e))
	must(t, l.put("pvc-2", e))
	must(t, l.remove("pvc-2"))
	must(t, l.remove("pvc-3"))
	again, err := openLedger(dir)
	must(t, err)
	if got, ok := again.get("pvc-1"); !ok || got != e || !slices.Equal(again.names(), []string{"pvc-1"}) {
		t.Errorf("%+v, %v", got, again.names())
	}
	files, err := os.ReadDir(dir)
	must(t, err)
	if len(files) != 1 {
		t.Errorf("temporary files stay: %v", files)
	}
}

// What could not be written is not believed either.
func TestLedgerThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	l, err := openLedger(dir)
	must(t, err)
	e := entry{Base: "/b", Path: "p"}
	must(t, l.put("pvc-1", e))
	l.path = filepath.Join(dir, "gone", ledgerFile)
	if err := l.remove("pvc-1"); err == nil {
		t.Error("removed")
	}
	if err := l.put("pvc-2", e); err == nil {
		t.Error("put")
	}
	if got := l.names(); !slices.Equal(got, []string{"pvc-1"}) {
		t.Errorf("it holds %v", got)
	}
}

func TestLedgerThatIsNone(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, ledgerFile), []byte("{"), 0o600))
	if _, err := openLedger(dir); err == nil || !strings.Contains(err.Error(), "if you remove it") {
		t.Errorf("%v", err)
	}
}
