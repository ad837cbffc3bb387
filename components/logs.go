package components

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/hashicorp/go-hclog"
)

const (
	maxLogLine = 16 << 10
	tailLines  = 20
)

// output takes what a plugin writes to its standard streams, line by line, to a logger,
// each line at its own level, and remembers the last ones for the error that tells of the
// plugin's death. Lines that belong to no known format are kept as information.
type output struct {
	logger hclog.Logger

	mu     sync.Mutex
	tail   []string
	panic  []string    // the first lines of a panic or a fatal error
	level  hclog.Level // of the line before
	inside bool        // of a panic: all that follows belongs to it
}

func newOutput(logger hclog.Logger) *output { return &output{logger: logger, level: hclog.Info} }

// writer returns a Writer that splits a stream into lines. Close hands on a last line
// without an end.
func (o *output) writer() *lineWriter { return &lineWriter{line: o.line} }

// line takes one line without its end.
func (o *output) line(text string) {
	text = strings.TrimRight(text, "\r")
	if strings.TrimSpace(text) == "" {
		return
	}
	o.mu.Lock()
	r := o.parse(text).printable()
	o.remember(r)
	o.mu.Unlock()
	o.logger.Log(r.level, r.message, r.fields...)
}

type logRecord struct {
	level   hclog.Level
	message string
	fields  []any
}

// printable returns the record as it may be logged and quoted: on one line, so that a
// component can't write lines that look like the core's, and without what a terminal
// obeys. hclog itself writes messages and keys as they are.
func (r logRecord) printable() logRecord {
	r.message = printable(r.message)
	for i, f := range r.fields {
		r.fields[i] = printableValue(f)
	}
	return r
}

// printable escapes new lines and replaces what else does not print, but for tabs. The
// SDK's own text.Clean is internal to it, and keeps new lines.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
	return strings.ReplaceAll(s, "\n", `\n`)
}

// printableValue cleans the strings in what JSON decodes to.
func printableValue(v any) any {
	switch v := v.(type) {
	case string:
		return printable(v)
	case []any:
		for i := range v {
			v[i] = printableValue(v[i])
		}
	case map[string]any:
		clean := make(map[string]any, len(v))
		for k := range v {
			clean[printable(k)] = printableValue(v[k])
		}
		return clean
	}
	return v
}

// text is the record on one line, for the tail.
func (r logRecord) text() string {
	var b strings.Builder
	b.WriteString(r.message)
	for i := 0; i+1 < len(r.fields); i += 2 {
		fmt.Fprintf(&b, " %v=%v", r.fields[i], r.fields[i+1])
	}
	return b.String()
}

func (o *output) remember(r logRecord) {
	text := r.text()
	if len(text) > 500 {
		text = strings.ToValidUTF8(text[:500], "") + "…"
	}
	if o.inside && len(o.panic) < 3 {
		o.panic = append(o.panic, text)
	}
	if r.level < hclog.Info { // nobody dies of those
		return
	}
	if o.tail = append(o.tail, text); len(o.tail) > tailLines {
		o.tail = slices.Delete(o.tail, 0, 1)
	}
}

// lastWords is what to quote when the plugin died: the beginning of a panic if there was
// one, else the last lines.
func (o *output) lastWords() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.panic) > 0 {
		return o.panic[0]
	}
	const quoted = 3
	return strings.Join(o.tail[max(0, len(o.tail)-quoted):], " | ")
}

// Headers of the formats that components' libraries write.
var (
	// klog: Lmmdd hh:mm:ss.uuuuuu threadid file:line] msg
	klogLine = regexp.MustCompile(`^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([^ \]]+:\d+)\] (.*)$`)
	// logrus: time="…" level=info msg="…" key=value
	logrusLine = regexp.MustCompile(`^time="?[^" ]+"? level=(\w+) msg=("(?:[^"\\]|\\.)*"|\S*)(.*)$`)
	bracket    = regexp.MustCompile(`^\[(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL)\] *(.*)$`)
	panicLine  = regexp.MustCompile(`^(panic: |fatal error: |SIGSEGV: |unexpected fault address |runtime: goroutine stack exceeds)`)
)

var klogLevels = map[string]hclog.Level{"I": hclog.Info, "W": hclog.Warn, "E": hclog.Error, "F": hclog.Error}

// parse is called with the lock held: what a line means may depend on those before it.
func (o *output) parse(text string) logRecord {
	if r, ok := parseJSON(text); ok {
		o.level, o.inside = r.level, false
		return r
	}
	if panicLine.MatchString(text) {
		o.level, o.inside = hclog.Error, true
		return logRecord{level: hclog.Error, message: text}
	}
	if m := klogLine.FindStringSubmatch(text); m != nil {
		o.level, o.inside = klogLevels[m[1]], false
		return logRecord{o.level, m[3], []any{"source", m[2]}}
	}
	if m := logrusLine.FindStringSubmatch(text); m != nil {
		o.level, o.inside = levelNamed(m[1]), false
		message := m[2]
		if unquoted, err := strconv.Unquote(message); err == nil {
			message = unquoted
		}
		return logRecord{level: o.level, message: strings.TrimSpace(message + m[3])}
	}
	if m := bracket.FindStringSubmatch(text); m != nil {
		o.level, o.inside = levelNamed(m[1]), false
		return logRecord{level: o.level, message: m[2]}
	}
	// A line that is set in goes on with the one before.
	if !o.inside && text[0] != ' ' && text[0] != '\t' {
		o.level = hclog.Info
	}
	return logRecord{level: o.level, message: text}
}

// parseJSON reads hclog's records, and those of zap, logrus and slog.
func parseJSON(text string) (logRecord, bool) {
	if text[0] != '{' {
		return logRecord{}, false
	}
	var all map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&all); err != nil {
		return logRecord{}, false
	}
	level, message := takeString(all, "@level", "level", "lvl"), takeString(all, "@message", "msg", "message")
	if level == "" && message == "" {
		return logRecord{}, false
	}
	takeString(all, "@timestamp", "time", "ts", "timestamp")
	if module := takeString(all, "@module"); module != "" {
		message = module + ": " + message
	}
	r := logRecord{level: levelNamed(level), message: message}
	keys := make([]string, 0, len(all))
	for k := range all {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		r.fields = append(r.fields, k, all[k])
	}
	return r, true
}

// takeString removes the first of the keys that is there.
func takeString(m map[string]any, keys ...string) string {
	for _, k := range keys {
		if v, ok := m[k]; ok {
			delete(m, k)
			if s, ok := v.(string); ok {
				return s
			}
			return fmt.Sprint(v)
		}
	}
	return ""
}

func levelNamed(name string) hclog.Level {
	switch strings.ToLower(name) {
	case "trace":
		return hclog.Trace
	case "debug":
		return hclog.Debug
	case "warn", "warning":
		return hclog.Warn
	case "error", "fatal", "panic", "dpanic":
		return hclog.Error
	}
	return hclog.Info
}

// lineWriter splits what is written to it into lines of at most maxLogLine bytes.
type lineWriter struct {
	line func(string)
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		piece, rest, ended := bytes.Cut(p, []byte{'\n'})
		if room := maxLogLine - len(w.rest); len(piece) > room {
			// What follows is a line of its own.
			piece, rest, ended = p[:room], p[room:], true
		}
		w.rest, p = append(w.rest, piece...), rest
		if ended {
			w.line(string(w.rest))
			w.rest = w.rest[:0]
		}
	}
	return n, nil
}

// Close hands on what has no line end.
func (w *lineWriter) Close() {
	if len(w.rest) > 0 {
		w.line(string(w.rest))
		w.rest = nil
	}
}

// levelName is the level that a plugin is told to log at.
func levelName(l hclog.Logger) string {
	if level := l.GetLevel(); level != hclog.NoLevel && level != hclog.Off {
		return level.String()
	}
	return hclog.Info.String()
}
