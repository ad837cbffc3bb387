package components

import (
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/hashicorp/go-hclog"
)

func TestOutputKeepsLevels(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"hclog":            {`{"@level":"warn","@message":"low disk","@timestamp":"2026-11-22T10:00:00.000000Z","free":7}`, "[WARN]  low disk: free=7"},
		"hclog, a module":  {`{"@level":"error","@message":"boom","@module":"vxlan"}`, "[ERROR] vxlan: boom"},
		"zap":              {`{"level":"error","ts":1,"msg":"boom","err":"x"}`, "[ERROR] boom: err=x"},
		"klog info":        {"I1122 10:00:00.123456   12345 main.go:42] starting", "[INFO]  starting: source=main.go:42"},
		"klog error":       {"E1122 10:00:00.123456       1 a/b.go:1] it failed", "[ERROR] it failed: source=a/b.go:1"},
		"klog, more lines": {"W1122 10:00:00.123456       1 b.go:1] it failed:\n\tbecause", "[WARN]  it failed:: source=b.go:1\n[WARN]  \tbecause"},
		"logrus":           {`time="2026-11-22T10:00:00Z" level=warning msg="a \"quoted\" word" id=7`, `[WARN]  a "quoted" word id=7`},
		"bracket":          {"[ERROR] plugin/errors: 2 x", "[ERROR] plugin/errors: 2 x"},
		"plain":            {"hello", "[INFO]  hello"},
		"other JSON":       {`{"a":1}`, `[INFO]  {"a":1}`},
		"broken JSON":      {`{"@level":"error"`, `[INFO]  {"@level":"error"`},
		"a forged line":    {`{"@message":"a\n[ERROR] core: b","@module":"m\r"}`, `[INFO]  m�: a\n[ERROR] core: b`},
		"a forging key":    {`{"@message":"a","b\n[ERROR] c":1}`, `[INFO]  a: b\n[ERROR] c=1`},
		"a forging value":  {`{"@message":"a","b":"c\n[ERROR] d","e":["\u001b[2J",{"\u001b":"\n"}]}`, `[INFO]  a: b="c\n[ERROR] d" e=[�[2J, map[�:\n]]`},
		"forging logrus":   {`time="x" level=info msg="a\n[ERROR] b\x1b[2J\u202e"`, `[INFO]  a\n[ERROR] b�[2J�`},
		"escapes":          {"a\x1b[2J\rb\x9b2J\u009b\u202e\xff", "[INFO]  a�[2J�b�2J���"},
		"panic":            {"panic: oh\n\ngoroutine 1 [running]:\nmain.main()", "[ERROR] panic: oh\n[ERROR] goroutine 1 [running]:\n[ERROR] main.main()"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			o := newOutput(hclog.New(&hclog.LoggerOptions{Output: &b, DisableTime: true, Level: hclog.Trace}))
			w := o.writer()
			for _, chunk := range strings.SplitAfter(tt.in, " ") { // pieces of lines
				if _, err := w.Write([]byte(chunk)); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			if got := strings.TrimSpace(b.String()); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestLastWords(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"nothing":        {"", ""},
		"the last lines": {"a\nb\nc\nd\n", "b | c | d"},
		"a panic":        {"a\npanic: oh\n\ngoroutine 1 [running]:\nmain.main()\n", "panic: oh"},
		"no chatter":     {"a\n" + `{"@level":"debug","@message":"x"}` + "\n", "a"},
		"forged words":   {`{"@message":"a\n\u001b[2J","k\n":"v\n"}`, `a\n�[2J k\n=v\n`},
		"cut at a rune":  {strings.Repeat("é", 1000) + "\nx" + strings.Repeat("é", 1000), strings.Repeat("é", 250) + "… | x" + strings.Repeat("é", 249) + "…"},
		"a long line":    {strings.Repeat("x", 2000), strings.Repeat("x", 500) + "…"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := newOutput(hclog.NewNullLogger())
			w := o.writer()
			_, _ = w.Write([]byte(tt.in))
			w.Close()
			if got := o.lastWords(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A line that comes in one piece is cut as one that comes in many is.
func TestLinesAreCut(t *testing.T) {
	long := strings.Repeat("x", 3*maxLogLine+5)
	for name, pieces := range map[string][]string{
		"one piece":   {long + "\nshort\n"},
		"many pieces": {long[:10], long[10 : 2*maxLogLine], long[2*maxLogLine:], "\nsho", "rt\n"},
		"no end":      {long + "\n", "short"},
	} {
		t.Run(name, func(t *testing.T) {
			var lengths []int
			w := &lineWriter{line: func(line string) { lengths = append(lengths, len(line)) }}
			for _, piece := range pieces {
				if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
					t.Errorf("wrote %d of %d, %v", n, len(piece), err)
				}
			}
			w.Close()
			if want := []int{maxLogLine, maxLogLine, maxLogLine, 5, 5}; !slices.Equal(lengths, want) {
				t.Errorf("lines of %d bytes, want %d", lengths, want)
			}
		})
	}
}

func FuzzOutput(f *testing.F) {
	f.Add("I1122 10:00:00.123456   12345 main.go:42] starting\n")
	f.Add(`{"@level":1,"@message":{"a":[]},"@timestamp":null}` + "\n")
	f.Add("time=\"x\" level=warning msg=\"a\\\"b\n\x00\xff")
	f.Add(`{"@message":"a\n\u001b[2J","k\n":["v\n",{"\u001b":"\r"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var log strings.Builder
		o := newOutput(hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true, Level: hclog.Trace}))
		w := o.writer()
		if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("wrote %d of %d, %v", n, len(text), err)
		}
		w.Close()
		if words := o.lastWords(); len(words) > 3*(500+len(" | …")) {
			t.Errorf("%d bytes of last words", len(words))
		}
		if unfit(o.lastWords(), "\t") {
			t.Errorf("last words %q", o.lastWords())
		}
		if unfit(log.String(), "\t\n") {
			t.Errorf("log %q", log.String())
		}
		for line := range strings.Lines(log.String()) {
			if !strings.HasPrefix(line, "[") {
				t.Errorf("a record has a second line: %q", line)
			}
		}
	})
}

// unfit tells whether text holds what a terminal may obey, but for what is allowed.
func unfit(text, allowed string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && !strings.ContainsRune(allowed, r) })
}
