package logging

import (
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// Components returns the parent of the components' loggers: one that is named after a
// component (ResetNamed) has that for an origin.
func (l *Log) Components() hclog.Logger {
	level := hclog.Info
	if l.debug {
		level = hclog.Debug
	}
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "components", Level: level, Output: io.Discard})
	logger.RegisterSink(sink{l})
	return logger
}

// sink is a hclog.SinkAdapter.
type sink struct{ log *Log }

var hclogLevels = map[hclog.Level]slog.Level{
	hclog.Trace: levelTrace, hclog.Debug: slog.LevelDebug, hclog.Warn: slog.LevelWarn, hclog.Error: slog.LevelError,
}

func (s sink) Accept(name string, level hclog.Level, message string, args ...any) {
	rec := record{level: hclogLevels[level], origin: name, message: message, fields: pairs(nil, args)}
	if rec.level == slog.LevelWarn && hangUp.MatchString(message) {
		rec.level = slog.LevelDebug // as with k3m's own half, see grpcLog
	}
	if rec.level >= s.log.minimum() {
		s.log.write(&rec)
	}
}

// pairs appends what a caller gave as key, value, key, value…
func pairs(fields []field, args []any) []field {
	for len(args) > 0 {
		key, ok := args[0].(string)
		if !ok {
			key = text(args[0])
		}
		if len(args) == 1 {
			return append(fields, field{"extra", args[0]})
		}
		fields = append(fields, field{key, args[1]})
		args = args[2:]
	}
	return fields
}
