package logging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-logr/logr"
)

// timeFormat is RFC 3339 with milliseconds, always in UTC: logs of several nodes are compared.
const timeFormat = "2006-01-02T15:04:05.000Z"

// maxText bounds a message or a value, in bytes: a line is for people.
const maxText = 16 << 10

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelDebug:
		return "TRACE"
	case l < slog.LevelInfo:
		return "DEBUG"
	case l < slog.LevelWarn:
		return "INFO"
	case l < slog.LevelError:
		return "WARN"
	}
	return "ERROR"
}

// appendText appends "TIME LEVEL origin: message key=value…" and a new line. Whatever is in
// the record, the result is one line, and nothing in it is obeyed by a terminal.
func appendText(b []byte, r *record) []byte {
	b = r.time.UTC().AppendFormat(b, timeFormat)
	level := levelName(r.level)
	b = append(b, ' ')
	b = append(b, level...)
	b = append(b, "      "[len(level):]...)
	b = appendPrintable(b, r.origin)
	b = append(b, ": "...)
	b = appendPrintable(b, clip(strings.TrimRight(r.message, "\r\n")))
	for _, f := range r.fields {
		b = append(b, ' ')
		b = appendWord(b, f.key)
		b = append(b, '=')
		b = appendWord(b, clip(text(f.value)))
	}
	return append(b, '\n')
}

// appendPrintable appends s with what does not print, line ends among it, escaped as in Go.
func appendPrintable(b []byte, s string) []byte {
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			b = utf8.AppendRune(b, unicode.ReplacementChar)
		case unicode.IsPrint(r):
			b = append(b, s[i:i+utf8.RuneLen(r)]...)
		default:
			quoted := strconv.QuoteRune(r)
			b = append(b, quoted[1:len(quoted)-1]...)
		}
	}
	return b
}

// appendWord appends a key or a value, in quotes unless it is a plain word.
func appendWord(b []byte, s string) []byte {
	plain := func(r rune) bool { return r > ' ' && r != '"' && r != '=' && r != utf8.RuneError && unicode.IsPrint(r) }
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return append(b, s...)
	}
	return strconv.AppendQuote(b, s)
}

func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

// text is a value as people read it.
func text(v any) string {
	switch v := plain(v).(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case json.Number:
		return v.String()
	case map[string]any, []any: // what a component's JSON held
		encoded, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(encoded)
	default:
		return fmt.Sprintf("%+v", v) // survives panics of String and Error
	}
}

// plain unpacks values that stand for others.
func plain(v any) any {
	switch v := v.(type) {
	case slog.Value:
		return v.Resolve().Any()
	case error, fmt.Stringer:
		return fmt.Sprint(v)
	case slog.LogValuer:
		return slog.AnyValue(v).Resolve().Any()
	case logr.Marshaler:
		return marshalLog(v)
	}
	return v
}

func marshalLog(v logr.Marshaler) (out any) {
	defer func() {
		if p := recover(); p != nil {
			out = fmt.Sprintf("%T panicked when it was logged: %v", v, p)
		}
	}()
	return v.MarshalLog()
}

// appendJSON appends the record as one JSON object on one line: time, level, origin and
// message first, then the fields. A field that is called like one of those gets a "_".
func appendJSON(b []byte, r *record) []byte {
	b = append(b, `{"time":"`...)
	b = r.time.UTC().AppendFormat(b, timeFormat)
	b = append(b, `","level":"`...)
	b = append(b, strings.ToLower(levelName(r.level))...)
	b = append(b, `","origin":`...)
	b = appendJSONValue(b, r.origin)
	b = append(b, `,"message":`...)
	b = appendJSONValue(b, clip(strings.TrimRight(r.message, "\r\n")))
	seen := map[string]bool{"time": true, "level": true, "origin": true, "message": true}
	for _, f := range r.fields {
		key := f.key
		for seen[key] {
			key += "_"
		}
		seen[key] = true
		b = append(b, ',')
		b = appendJSONValue(b, key)
		b = append(b, ':')
		b = appendJSONValue(b, plain(f.value))
	}
	return append(b, "}\n"...)
}

func appendJSONValue(b []byte, v any) []byte {
	switch s := v.(type) {
	case string:
		v = clip(s)
	case nil, bool, int, int32, int64, uint64, float64, json.Number, map[string]any, []any, []string:
	default:
		v = clip(text(v))
	}
	var encoded bytes.Buffer
	e := json.NewEncoder(&encoded)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil || encoded.Len() > 2*maxText+2 {
		encoded.Reset()
		_ = e.Encode(clip(fmt.Sprintf("%+v", v))) // a string always can be encoded
	}
	return append(b, bytes.TrimRight(encoded.Bytes(), "\n")...)
}
