package logging

import (
	"context"
	"log/slog"
	"strings"
)

// Logger returns a logger whose lines have the origin. With an attribute `part`, given to
// Logger.With, that is the origin instead.
func (l *Log) Logger(origin string) *slog.Logger { return slog.New(handler{log: l, origin: origin}) }

// handler is a slog.Handler.
type handler struct {
	log    *Log
	origin string
	group  string
	fields []field
}

func (h handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.log.minimum() }

func (h handler) Handle(_ context.Context, r slog.Record) error {
	rec := record{time: r.Time, level: r.Level, origin: h.origin, message: r.Message, fields: h.fields[:len(h.fields):len(h.fields)]}
	r.Attrs(func(a slog.Attr) bool {
		rec.fields = appendAttr(rec.fields, h.group, a)
		return true
	})
	h.log.write(&rec)
	return nil
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.fields = h.fields[:len(h.fields):len(h.fields)]
	for _, a := range attrs {
		if a.Key == "part" && h.group == "" {
			h.origin = strings.ReplaceAll(a.Value.String(), " ", "-")
			continue
		}
		h.fields = appendAttr(h.fields, h.group, a)
	}
	return h
}

func (h handler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.group += name + "."
	}
	return h
}

// appendAttr flattens groups: "request.method".
func appendAttr(fields []field, group string, a slog.Attr) []field {
	value := a.Value.Resolve()
	if value.Kind() != slog.KindGroup {
		if a.Equal(slog.Attr{}) {
			return fields
		}
		return append(fields, field{group + a.Key, value.Any()})
	}
	if a.Key != "" {
		group += a.Key + "."
	}
	for _, inner := range value.Group() {
		fields = appendAttr(fields, group, inner)
	}
	return fields
}
