// Package support writes support bundles: one compressed archive with what somebody needs who is
// to find out, from afar, what is wrong with a node, and without secrets.
//
// Everything goes through a redact.Redactor. What can't be got is named in errors.txt, what there
// was no room for in left-out.txt; neither keeps the rest from being written.
package support

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/k3m-io/k3m/cmd/internal/redact"
)

// Bounds, before compression.
const (
	// MaxFile is how much of one file is kept: the beginning, or the end of a log.
	MaxFile = 4 << 20
	// MaxBundle is how much all of them are.
	MaxBundle = 64 << 20
)

// Bundle is one that is being written. It is for one goroutine.
type Bundle struct {
	folder  string
	now     time.Time
	red     *redact.Redactor
	file    *os.File
	zip     *gzip.Writer
	tar     *tar.Writer
	room    int
	errors  []string
	leftOut []string
	failed  error // writing did; nothing more is written
}

// Create makes the archive's file, which must not exist, for its owner alone. Its content lies in
// a folder of that name. Close is to be called, also after an error.
func Create(file, folder string, red *redact.Redactor) (*Bundle, error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the bundle: %w", err)
	}
	zip := gzip.NewWriter(f)
	return &Bundle{folder: folder, now: time.Now(), red: red, file: f, zip: zip, tar: tar.NewWriter(zip), room: MaxBundle}, nil
}

// Add writes the beginning of a text.
func (b *Bundle) Add(name, text string) {
	if len(text) > MaxFile {
		b.leftOut = append(b.leftOut, fmt.Sprintf("%s: the last %d bytes", name, len(text)-MaxFile))
		text = text[:MaxFile]
		text = text[:strings.LastIndexByte(text, '\n')+1] // half a line can be half a secret
	}
	b.write(name, b.red.Text(text))
}

// AddLog writes the end of a text.
func (b *Bundle) AddLog(name, text string) {
	if len(text) > MaxFile {
		b.leftOut = append(b.leftOut, fmt.Sprintf("%s: the first %d bytes", name, len(text)-MaxFile))
		text = text[len(text)-MaxFile:]
		_, text, _ = strings.Cut(text, "\n") // half a line can be half a secret
	}
	b.write(name, b.red.Text(text))
}

// AddYAML writes configuration. What is not YAML is not written: nobody could tell what in it is
// secret.
func (b *Bundle) AddYAML(name string, text []byte) {
	if len(text) > MaxFile {
		b.Failed(name, fmt.Errorf("it is larger than %d bytes", MaxFile))
		return
	}
	clean, err := b.red.YAML(text)
	if err != nil {
		b.Failed(name, err)
		return
	}
	b.write(name, string(clean))
}

// Failed takes note of what could not be got.
func (b *Bundle) Failed(name string, err error) {
	b.errors = append(b.errors, name+": "+strings.ReplaceAll(err.Error(), "\n", "; "))
}

func (b *Bundle) write(name, text string) {
	if b.failed != nil {
		return
	}
	if len(text) > b.room {
		b.leftOut = append(b.leftOut, fmt.Sprintf("%s: all %d bytes", name, len(text)))
		return
	}
	b.room -= len(text)
	b.put(name, text)
}

func (b *Bundle) put(name, text string) {
	b.failed = b.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: path.Join(b.folder, path.Clean("/"+name)), Mode: 0o600, Size: int64(len(text)), ModTime: b.now,
	})
	if b.failed == nil {
		_, b.failed = io.WriteString(b.tar, text)
	}
}

// Close writes what could not be got and what was left out, and ends the archive. On an error the
// file is removed.
func (b *Bundle) Close() error {
	for name, lines := range map[string][]string{"errors.txt": b.errors, "left-out.txt": b.leftOut} {
		if len(lines) > 0 && b.failed == nil {
			b.put(name, b.red.Text(strings.Join(lines, "\n")+"\n"))
		}
	}
	err := b.failed
	for _, end := range []func() error{b.tar.Close, b.zip.Close, b.file.Sync, b.file.Close} {
		if failed := end(); err == nil {
			err = failed
		}
	}
	if err != nil {
		_ = os.Remove(b.file.Name()) // half of one is of no use
		return fmt.Errorf("write the bundle: %w", err)
	}
	return nil
}
