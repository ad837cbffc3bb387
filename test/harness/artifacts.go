package harness

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// saveArtifacts keeps the logs of a failed test's host below K3M_ARTIFACTS, if set.
func (h *Host) saveArtifacts() {
	top := os.Getenv("K3M_ARTIFACTS")
	if top == "" {
		return
	}
	dir := filepath.Join(top, strings.ReplaceAll(h.tb.Name(), "/", "_"), h.Name)
	copies := map[string]string{
		filepath.Join(h.Dir, "k3m.log"): filepath.Join(dir, "k3m.log"),
		h.Path("/var/log/pods"):         filepath.Join(dir, "pods"),
	}
	for from, to := range copies {
		if err := copyFiles(from, to); err != nil {
			h.tb.Logf("keep %s: %v", from, err)
		}
	}
	if now, err := h.Snapshot(); err == nil && os.MkdirAll(dir, 0o755) == nil {
		if err := os.WriteFile(filepath.Join(dir, "snapshot.txt"), []byte(lines(now)), 0o644); err != nil {
			h.tb.Logf("keep what is on the host: %v", err)
		}
	}
}

func copyFiles(from, to string) error {
	st, err := os.Stat(from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // it never came that far
	case err != nil:
		return err
	case st.IsDir():
		return os.CopyFS(to, os.DirFS(from))
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}
