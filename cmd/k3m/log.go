package main

import (
	"context"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// coreLog gives the core's slog records to the logger that the components' records go
// through, so that both are lines of one form on one stream.
type coreLog struct {
	logger hclog.Logger
	group  string
}

// newCoreLog returns the core's logger: records carry the origin "core" or, with an
// attribute `part`, "core.<part>".
func newCoreLog(logger hclog.Logger) *slog.Logger {
	return slog.New(coreLog{logger: logger.Named("core")})
}

func (h coreLog) level(l slog.Level) hclog.Level {
	switch {
	case l < slog.LevelInfo:
		return hclog.Debug
	case l < slog.LevelWarn:
		return hclog.Info
	case l < slog.LevelError:
		return hclog.Warn
	}
	return hclog.Error
}

func (h coreLog) Enabled(_ context.Context, l slog.Level) bool {
	return h.level(l) >= h.logger.GetLevel()
}

func (h coreLog) Handle(_ context.Context, r slog.Record) error {
	var args []any
	r.Attrs(func(a slog.Attr) bool {
		args = append(args, h.group+a.Key, a.Value.Resolve().Any())
		return true
	})
	h.logger.Log(h.level(r.Level), r.Message, args...)
	return nil
}

func (h coreLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "part" && h.group == "" {
			h.logger = h.logger.Named(strings.ReplaceAll(a.Value.String(), " ", "-"))
			continue
		}
		h.logger = h.logger.With(h.group+a.Key, a.Value.Resolve().Any())
	}
	return h
}

func (h coreLog) WithGroup(name string) slog.Handler {
	if name != "" {
		h.group += name + "."
	}
	return h
}
