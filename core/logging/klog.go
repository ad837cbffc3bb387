package logging

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// debugVerbosity is klog's with Options.Debug; the one that Kubernetes advises for operators.
const debugVerbosity = 2

// klog's verbosity is the whole process's. It is kept here too, as klog has no cheap way to
// ask for it: contextual loggers do so all the time.
var (
	verbosity atomic.Int32
	modules   atomic.Bool // a vmodule pattern is set
)

// RaiseVerbosity raises klog's verbosity; a lower one than there is changes nothing.
func RaiseVerbosity(v int) error {
	if v <= int(verbosity.Load()) {
		return nil
	}
	if err := setKlogFlag("v", strconv.Itoa(v)); err != nil {
		return fmt.Errorf("set the log's verbosity: %w", err)
	}
	verbosity.Store(int32(v)) //nolint:gosec // klog has taken it as 32 bits
	return nil
}

// SetModules sets klog's verbosity by source file: "reflector=4,kubelet*=3".
func SetModules(patterns string) error {
	if err := setKlogFlag("vmodule", patterns); err != nil {
		return fmt.Errorf("set the log's verbosity by file: %w", err)
	}
	modules.Store(patterns != "")
	return nil
}

func setKlogFlag(name, value string) error {
	var flags flag.FlagSet
	klog.InitFlags(&flags)
	return flags.Set(name, value)
}

// takeKlog sends what Kubernetes' libraries log to l. It is not safe while they log.
func (l *Log) takeKlog() error {
	klog.SetLoggerWithOptions(logr.New(kubeSink{log: l}), klog.ContextualLogger(true), klog.WriteKlogBuffer(l.takeBuffer))
	if l.debug {
		return RaiseVerbosity(debugVerbosity)
	}
	return nil
}

// wanted tells whether a record from Kubernetes' libraries is written: k3m's own, warnings
// and errors always, and information if somebody asked for it.
func (l *Log) wanted(level slog.Level, own bool) bool {
	return level >= slog.LevelWarn || own || l.debug || verbosity.Load() > 0 || modules.Load()
}

// kubeSink is a logr.LogSink.
type kubeSink struct {
	log    *Log
	name   string
	fields []field
}

func (s kubeSink) Init(logr.RuntimeInfo) {}

func (s kubeSink) Enabled(level int) bool {
	if level <= int(verbosity.Load()) {
		return true
	}
	return modules.Load() && klog.VDepth(callerDepth(), klog.Level(level)).Enabled() //nolint:gosec // levels are small
}

func (s kubeSink) Info(level int, message string, args ...any) {
	severity := slog.LevelInfo
	if level > 0 {
		severity = slog.LevelDebug
	}
	s.write(severity, message, nil, args)
}

func (s kubeSink) Error(err error, message string, args ...any) {
	s.write(slog.LevelError, message, err, args)
}

func (s kubeSink) write(level slog.Level, message string, err error, args []any) {
	from := caller()
	if isNoise(from.origin, message, err) {
		level = slog.LevelInfo
	}
	if !s.log.wanted(level, from.own) {
		return
	}
	rec := record{level: level, origin: from.origin, message: message}
	if s.name != "" {
		rec.fields = append(rec.fields, field{"logger", s.name})
	}
	rec.fields = pairs(append(rec.fields, s.fields...), args)
	if err != nil {
		rec.fields = append(rec.fields, field{"err", err})
	}
	s.log.writeKube(&rec, from)
}

func (s kubeSink) WithValues(args ...any) logr.LogSink {
	s.fields = pairs(s.fields[:len(s.fields):len(s.fields)], args)
	return s
}

func (s kubeSink) WithName(name string) logr.LogSink {
	if s.name != "" {
		name = s.name + "/" + name
	}
	s.name = name
	return s
}

// writeKube adds the place in the source, for those who look for trouble.
func (l *Log) writeKube(rec *record, from source) {
	if l.debug && from.file != "" {
		rec.fields = append(rec.fields, field{"source", from.file + ":" + strconv.Itoa(from.line)})
	}
	l.write(rec)
}

var severities = map[byte]slog.Level{'W': slog.LevelWarn, 'E': slog.LevelError, 'F': slog.LevelError}

// takeBuffer takes what klog's printf-like functions made: a header, which alone tells the
// severity, and the message: "Lmmdd hh:mm:ss.uuuuuu threadid file:line] msg".
func (l *Log) takeBuffer(line []byte) {
	if len(line) == 0 {
		return
	}
	level := severities[line[0]] // else information
	from := caller()
	if _, message, ok := bytes.Cut(line, []byte("] ")); ok {
		line = message
	}
	message := strings.TrimSpace(string(line))
	if isNoise(from.origin, message, nil) {
		level = slog.LevelInfo
	}
	if l.wanted(level, from.own) {
		l.writeKube(&record{level: level, origin: from.origin, message: message}, from)
	}
}
