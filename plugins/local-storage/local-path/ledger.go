package localpath

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

const (
	ledgerFile = "unbound.json"
	// maxLedger bounds what is read: some ten thousand directories.
	maxLedger = 8 << 20
)

// ledger remembers directories that were made and whose PersistentVolume is not in the API
// yet, so that a crash in between leaves nothing behind. It is a file in the component's
// state directory; its methods may be called by several goroutines.
type ledger struct {
	path string

	mu      sync.Mutex
	entries map[string]entry // by the name of the PersistentVolume
}

// entry is a directory that waits for its PersistentVolume.
type entry struct {
	Base string `json:"base"`
	Path string `json:"path"` // relative to Base
	// Inode tells the directory from another one that came to be at the same path.
	Inode     inode  `json:"inode"`
	Namespace string `json:"namespace"` // of the claim
	Claim     string `json:"claim"`
	ClaimUID  string `json:"claimUID"`
}

func openLedger(stateDir string) (*ledger, error) {
	l := &ledger{path: filepath.Join(stateDir, ledgerFile), entries: map[string]entry{}}
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxLedger+1))
	if err == nil && len(raw) > maxLedger {
		err = fmt.Errorf("more than %d bytes", maxLedger)
	}
	if err == nil {
		err = json.Unmarshal(raw, &l.entries)
	}
	if err != nil {
		return nil, fmt.Errorf("read the ledger %s: %w; if you remove it, directories of volumes that were never bound may stay", l.path, err)
	}
	return l, nil
}

func (l *ledger) get(pv string) (entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[pv]
	return e, ok
}

// names lists the PersistentVolumes that are waited for.
func (l *ledger) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.entries))
}

// put is on disk when it returns.
func (l *ledger) put(pv string, e entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, had := l.entries[pv]
	l.entries[pv] = e
	if err := l.write(); err != nil {
		if delete(l.entries, pv); had {
			l.entries[pv] = old
		}
		return err
	}
	return nil
}

// remove forgets an entry, if there is one. With an error it is still there.
func (l *ledger) remove(pv string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, ok := l.entries[pv]
	if !ok {
		return nil
	}
	delete(l.entries, pv)
	if err := l.write(); err != nil {
		l.entries[pv] = old // as in the file
		return err
	}
	return nil
}

// write replaces the file. l.mu is held.
func (l *ledger) write() error {
	raw, err := json.Marshal(l.entries)
	if err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(l.path), ledgerFile+".*")
	if err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	if err := os.Rename(f.Name(), l.path); err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	dir, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	defer dir.Close()
	return dir.Sync()
}
