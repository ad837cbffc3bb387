package logging

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gopkg.in/natefinch/lumberjack.v2"
)

// How much of a log file is kept: the file itself and compressed older ones beside it, at most
// about 20 MB + 3 × 2 MB.
const (
	fileMegabytes = 20
	fileBackups   = 3
)

// openFile opens a log file that is rotated. It and its older ones can be read by the owner
// alone: errors quote what users named their things.
func openFile(name string) (io.WriteCloser, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotOpen, err)
	}
	// To say now what is wrong: the library opens it at the first line.
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotOpen, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if f.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotOpen, err)
	}
	return &lumberjack.Logger{Filename: name, MaxSize: fileMegabytes, MaxBackups: fileBackups, Compress: true}, nil
}
