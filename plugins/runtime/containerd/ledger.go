package containerd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// ledger remembers which archives were imported, so that a restart does not read them
// again and an archive is imported once however often it is copied. It lies beside the
// images: without them it would be wrong.
type ledger struct {
	path  string
	files map[string]ledgerEntry
}

// ledgerEntry is one file as it was when its import succeeded.
type ledgerEntry struct {
	Size    int64     `json:"size"`
	ModTime time.Time `json:"modTime"`
	SHA256  string    `json:"sha256"`
	Images  []string  `json:"images"`
}

// openLedger reads the ledger at path. An unreadable one counts as empty, and says so:
// the price is importing again.
func openLedger(path string) (*ledger, error) {
	l := &ledger{path: path, files: map[string]ledgerEntry{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &l.files)
	}
	if err != nil || l.files == nil {
		l.files = map[string]ledgerEntry{}
		return l, fmt.Errorf("read the record of imported archives: %w", err)
	}
	return l, nil
}

// unchanged finds the import of the file as it is now.
func (l *ledger) unchanged(name string, info fs.FileInfo) (ledgerEntry, bool) {
	e, ok := l.files[name]
	return e, ok && e.Size == info.Size() && e.ModTime.Equal(info.ModTime())
}

// twin finds an import of the same bytes, under whatever name.
func (l *ledger) twin(sha256 string) (ledgerEntry, bool) {
	for _, e := range l.files {
		if e.SHA256 == sha256 {
			return e, true
		}
	}
	return ledgerEntry{}, false
}

// hasSize tells whether a twin of a file of that size is possible.
func (l *ledger) hasSize(size int64) bool {
	for _, e := range l.files {
		if e.Size == size {
			return true
		}
	}
	return false
}

// record adds an import and writes the ledger.
func (l *ledger) record(name string, info fs.FileInfo, sha256 string, images []string) error {
	l.files[name] = ledgerEntry{Size: info.Size(), ModTime: info.ModTime(), SHA256: sha256, Images: images}
	raw, err := json.MarshalIndent(l.files, "", "  ")
	if err == nil {
		err = replaceFile(l.path, raw)
	}
	if err != nil {
		return fmt.Errorf("write the record of imported archives: %w", err)
	}
	return nil
}

// replaceFile writes a file so that a reader, or a power cut, sees the old or the new.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it was renamed
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
