package logging

import (
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"strings"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/grpclog"
)

// Adopt makes l the log of the whole process: of klog, slog's default, the standard library's
// log, logrus (kine) and gRPC. It is called once, before anything logs.
func (l *Log) Adopt() error {
	if err := l.takeKlog(); err != nil {
		return err
	}
	slog.SetDefault(l.Logger("core"))
	// After slog, which would take it as information of the core's.
	stdlog.SetFlags(0)
	stdlog.SetOutput(stdlib{l})
	l.takeLogrus()
	grpclog.SetLoggerV2(grpcLog{l})
	return nil
}

// stdlib takes the lines of package log, which know no levels: mostly complaints of net/http.
type stdlib struct{ log *Log }

func (s stdlib) Write(line []byte) (int, error) {
	from := caller()
	s.log.writeKube(&record{level: slog.LevelInfo, origin: from.origin, message: strings.TrimSpace(string(line))}, from)
	return len(line), nil
}

// takeLogrus takes what kine says, the only one here that uses logrus. Its information is
// chatter, but for those who ask for it.
func (l *Log) takeLogrus() {
	logrus.SetOutput(io.Discard)
	logrus.SetLevel(logrus.InfoLevel)
	if l.debug {
		logrus.SetLevel(logrus.DebugLevel)
	}
	logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{})
	logrus.AddHook(logrusHook{l})
}

// logrusHook is a logrus.Hook.
type logrusHook struct{ log *Log }

func (logrusHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h logrusHook) Fire(entry *logrus.Entry) error {
	rec := record{time: entry.Time, level: slog.LevelDebug, origin: "datastore", message: entry.Message}
	switch entry.Level {
	case logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel:
		rec.level = slog.LevelError
	case logrus.WarnLevel:
		rec.level = slog.LevelWarn
	}
	if rec.level < h.log.minimum() {
		return nil
	}
	for key, value := range entry.Data {
		rec.fields = append(rec.fields, field{key, value})
	}
	h.log.write(&rec)
	return nil
}

// grpcLog is a grpclog.LoggerV2. gRPC's information, and its warnings about connections that
// are being closed, are for those who debug.
type grpcLog struct{ log *Log }

func (g grpcLog) say(level slog.Level, message string) {
	if level >= g.log.minimum() {
		g.log.write(&record{level: level, origin: "grpc", message: strings.TrimSpace(message)})
	}
}

func (g grpcLog) Info(args ...any)   { g.say(slog.LevelDebug, fmt.Sprint(args...)) }
func (g grpcLog) Infoln(args ...any) { g.say(slog.LevelDebug, fmt.Sprintln(args...)) }
func (g grpcLog) Infof(format string, args ...any) {
	g.say(slog.LevelDebug, fmt.Sprintf(format, args...))
}
func (g grpcLog) Warning(args ...any)   { g.say(slog.LevelDebug, fmt.Sprint(args...)) }
func (g grpcLog) Warningln(args ...any) { g.say(slog.LevelDebug, fmt.Sprintln(args...)) }
func (g grpcLog) Warningf(format string, args ...any) {
	g.say(slog.LevelDebug, fmt.Sprintf(format, args...))
}
func (g grpcLog) Error(args ...any)   { g.say(slog.LevelError, fmt.Sprint(args...)) }
func (g grpcLog) Errorln(args ...any) { g.say(slog.LevelError, fmt.Sprintln(args...)) }
func (g grpcLog) Errorf(format string, args ...any) {
	g.say(slog.LevelError, fmt.Sprintf(format, args...))
}
func (g grpcLog) Fatal(args ...any) {
	g.say(slog.LevelError, fmt.Sprint(args...))
	panic(fmt.Sprint(args...))
}
func (g grpcLog) Fatalln(args ...any)               { g.Fatal(args...) }
func (g grpcLog) Fatalf(format string, args ...any) { g.Fatal(fmt.Sprintf(format, args...)) }

// V is asked before information is put together.
func (g grpcLog) V(int) bool { return g.log.debug }
