package components

import (
	"strings"
	"testing"

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

func FuzzOutput(f *testing.F) {
	f.Add("I1122 10:00:00.123456   12345 main.go:42] starting\n")
	f.Add(`{"@level":1,"@message":{"a":[]},"@timestamp":null}` + "\n")
	f.Add("time=\"x\" level=warning msg=\"a\\\"b\n\x00\xff")
	f.Fuzz(func(t *testing.T, text string) {
		o := newOutput(hclog.New(&hclog.LoggerOptions{Output: &strings.Builder{}, Level: hclog.Trace}))
		w := o.writer()
		if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("wrote %d of %d, %v", n, len(text), err)
		}
		w.Close()
		if words := o.lastWords(); len(words) > 3*(500+len(" | …")) {
			t.Errorf("%d bytes of last words", len(words))
		}
	})
}
