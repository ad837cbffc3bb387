// Package logging brings all that a k3m process says into lines of one form, with the origin
// first:
//
//	2026-11-24T16:20:58.123Z INFO  core: API ready after=2.41s
//	2026-11-24T16:20:59.004Z ERROR kubelet: Pod sandbox failed pod=default/web err="no such image"
//
// What comes in, and where: the core's own records through slog (slog.go), Kubernetes' through
// klog (klog.go; origin.go tells its parts apart), those of libraries with loggers of their own
// (adopt.go), and those of components through hclog (components.go). What goes out: text or
// JSON (format.go), to standard error, a file that is rotated (file.go) and, for the last lines
// of each origin, memory (recent.go).
//
// A panic's stack is not a log line: the Go runtime writes it to standard error.
package logging

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// The values of Options.Format.
const (
	Text = "text"
	JSON = "json"
)

// Options say what is logged, how and where.
type Options struct {
	// Format is Text or JSON; empty is Text.
	Format string
	// Debug logs everything that the core and components say, and Kubernetes' information
	// at klog's verbosity 2. Without it there are the core's and the components' information,
	// and Kubernetes' warnings and errors.
	Debug bool
	// File is where the log goes instead of Stderr, absolute; empty is Stderr alone.
	File string
	// AlsoStderr, with a File, writes to both.
	AlsoStderr bool
	// Stderr gets the lines, one call of Write each, never two at once.
	Stderr io.Writer
}

// Log takes records from all loggers that it hands out and writes them as lines. All methods
// may be called by any number of goroutines.
type Log struct {
	debug  bool
	format func(b []byte, r *record) []byte
	recent *Recent
	quiet  atomic.Bool

	// lines are made outside of the lock: a value's String may log, too.
	buffers sync.Pool

	mu     sync.Mutex
	file   io.WriteCloser // or nil
	stderr io.Writer      // or nil
	spare  io.Writer      // for what can't be written to the file
}

// New opens the log. The caller calls Close when nothing logs any more.
func New(o Options) (*Log, error) {
	l := &Log{debug: o.Debug, recent: newRecent(), stderr: o.Stderr, spare: o.Stderr}
	switch o.Format {
	case Text, "":
		l.format = appendText
	case JSON:
		l.format = appendJSON
	default:
		return nil, fmt.Errorf("log format %q is neither %s nor %s", o.Format, Text, JSON)
	}
	if o.File == "" {
		return l, nil
	}
	if !o.AlsoStderr {
		l.stderr = nil
	}
	var err error
	l.file, err = openFile(o.File)
	return l, err
}

// Close closes the file, if any; what is logged later goes to standard error.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file, l.stderr = nil, l.spare
	return file.Close()
}

// Recent are the last lines of each origin.
func (l *Log) Recent() *Recent { return l.recent }

// Quiet keeps lines below a warning from standard error, while something else there tells
// the operator the same. A file, and Recent, have them all the same.
func (l *Log) Quiet(on bool) { l.quiet.Store(on) }

// minimum is the level from which on the core and components are logged.
func (l *Log) minimum() slog.Level {
	if l.debug {
		return levelTrace
	}
	return slog.LevelInfo
}

// levelTrace is hclog's lowest level.
const levelTrace = slog.LevelDebug - 4

// record is one line to be.
type record struct {
	time    time.Time
	level   slog.Level
	origin  string
	message string
	fields  []field
}

// field is one key and value. Values are what a caller gave, to be looked at once, while the
// line is made.
type field struct {
	key   string
	value any
}

// write makes the record a line, and sends it where lines go.
func (l *Log) write(r *record) {
	if r.time.IsZero() {
		r.time = time.Now()
	}
	buffer, ok := l.buffers.Get().(*[]byte)
	if !ok {
		buffer = new([]byte)
	}
	line := l.format((*buffer)[:0], r)
	defer func() {
		if *buffer = line; cap(line) <= 64<<10 {
			l.buffers.Put(buffer)
		}
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent.add(r.origin, line)
	var failed error
	if l.file != nil {
		_, failed = l.file.Write(line)
	}
	if l.stderr != nil && (r.level >= slog.LevelWarn || !l.quiet.Load()) || failed != nil && l.spare != nil {
		// There is nowhere to tell of a standard error that can't be written to.
		_, _ = l.spare.Write(line)
	}
}

// errNotOpen is wrapped by the error of a file that can't be opened.
var errNotOpen = errors.New("the log can't be written; name another file with --log")
