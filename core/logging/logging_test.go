package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
)

// lined is what a record must become: one line of the documented form.
var lined = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (TRACE|DEBUG|INFO |WARN |ERROR) [^ :]+: `)

func newTestLog(t *testing.T, o Options) (*Log, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	o.Stderr = &out
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Adopt(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		klog.ClearLogger()
		_ = setKlogFlag("v", "0")
		_ = SetModules("")
		verbosity.Store(0)
		l.Close()
	})
	return l, &out
}

// without is the lines without their times.
func without(t *testing.T, out *bytes.Buffer) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(out.String()) {
		if !lined.MatchString(line) {
			t.Errorf("not a line of the log's form: %q", line)
		}
		_, rest, _ := strings.Cut(line, " ")
		lines = append(lines, rest)
	}
	return strings.Join(lines, "")
}

// TestOneForm: whoever logs, through whatever library, it comes out as the same kind of line.
func TestOneForm(t *testing.T) {
	cases := map[string]struct {
		say  func(l *Log)
		want string
	}{
		"core":             {func(l *Log) { l.Logger("core").Info("API ready", "after", 2410*time.Millisecond) }, "INFO  core: API ready after=2.41s\n"},
		"a part":           {func(l *Log) { l.Logger("core").With("part", "agent").Warn("x", "why", "two words") }, "WARN  agent: x why=\"two words\"\n"},
		"a group":          {func(l *Log) { l.Logger("core").WithGroup("req").Error("x", "method", "GET") }, "ERROR core: x req.method=GET\n"},
		"debug":            {func(l *Log) { l.Logger("core").Debug("x") }, ""},
		"component":        {func(l *Log) { l.Components().ResetNamed("cni.flannel").Warn("low", "free", 7) }, "WARN  cni.flannel: low free=7\n"},
		"component, debug": {func(l *Log) { l.Components().ResetNamed("cni.flannel").Debug("low") }, ""},
		"klog info":        {func(*Log) { kubernetes(func() { klog.InfoS("chatter"); klog.Infof("chatter %d", 1) }) }, ""},
		"klog warning":     {func(*Log) { kubernetes(func() { klog.Warningf("is %s", "odd") }) }, "WARN  kubernetes: is odd\n"},
		"klog error":       {func(*Log) { kubernetes(func() { klog.Errorf("it failed") }) }, "ERROR kubernetes: it failed\n"},
		"klog ErrorS": {func(*Log) {
			kubernetes(func() { klog.ErrorS(errors.New("no way"), "It failed", "pod", klog.KRef("default", "web")) })
		}, "ERROR kubernetes: It failed pod=default/web err=\"no way\"\n"},
		"a contextual one": {func(*Log) {
			kubernetes(func() { klog.LoggerWithName(klog.Background(), "gc").WithValues("a", 1).Error(nil, "bad") })
		}, "ERROR kubernetes: bad logger=gc a=1\n"},
		"logrus":             {func(*Log) { logrus.WithField("id", 7).Warn("slow SQL") }, "WARN  datastore: slow SQL id=7\n"},
		"logrus' chatter":    {func(*Log) { logrus.Info("slow SQL") }, ""},
		"standard library":   {func(*Log) { kubernetes(func() { stdlog.Printf("http: TLS handshake error") }) }, "INFO  kubernetes: http: TLS handshake error\n"},
		"slog's default":     {func(*Log) { slog.Warn("x") }, "WARN  core: x\n"},
		"a forged line":      {func(l *Log) { l.Logger("core").Info("a\n2026-11-24T16:20:58.123Z ERROR core: b", "k\n", "v\x1b[2J\n") }, `INFO  core: a\n2026-11-24T16:20:58.123Z ERROR core: b "k\n"="v\x1b[2J\n"` + "\n"},
		"a forged component": {func(l *Log) { l.Components().ResetNamed("addon.x").Info("a\rb\u202ec") }, `INFO  addon.x: a\rb\u202ec` + "\n"},
		"a nil Stringer":     {func(l *Log) { l.Logger("core").Info("x", "v", (*time.Location)(nil)) }, "INFO  core: x v=UTC\n"},
		"a Stringer that panics": {func(l *Log) { l.Logger("core").Info("x", "v", panics{}) },
			"INFO  core: x v=\"%!v(PANIC=String method: oh)\"\n"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l, out := newTestLog(t, Options{})
			c.say(l)
			if got := without(t, out); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

type panics struct{}

func (panics) String() string { panic("oh") }

// kubernetes calls f as a library would be called: see isLogging.
func kubernetes(f func()) { f() }

func TestDebugShowsDetails(t *testing.T) {
	l, out := newTestLog(t, Options{Debug: true})
	l.Logger("core").Debug("a")
	l.Components().ResetNamed("addon.x").Debug("b")
	klog.InfoS("c")
	klog.V(2).Infof("d")
	klog.V(3).InfoS("not this")
	klog.Background().V(2).Info("e")
	klog.Background().V(3).Info("nor this")
	logrus.Debug("f")
	got := without(t, out)
	for _, want := range []string{"DEBUG core: a\n", "DEBUG addon.x: b\n", ": c source=logging_test.go:", ": d source=logging_test.go:", ": e source=", "DEBUG datastore: f\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "this") {
		t.Errorf("more than was asked for:\n%s", got)
	}
}

// TestVerbosityOfOnePart: --kubelet-arg=v=4 shows Kubernetes' details without --debug.
func TestVerbosityOfOnePart(t *testing.T) {
	_, out := newTestLog(t, Options{})
	if err := RaiseVerbosity(4); err != nil {
		t.Fatal(err)
	}
	klog.V(4).InfoS("a")
	klog.V(5).InfoS("b")
	if got := without(t, out); !strings.Contains(got, "a\n") || strings.Contains(got, "b\n") {
		t.Errorf("got %q", got)
	}
}

func TestModules(t *testing.T) {
	_, out := newTestLog(t, Options{})
	if err := SetModules("logging_test=6"); err != nil {
		t.Fatal(err)
	}
	klog.V(6).InfoS("a")
	klog.V(7).InfoS("b")
	if got := without(t, out); !strings.Contains(got, "a\n") || strings.Contains(got, "b\n") {
		t.Errorf("got %q", got)
	}
}

func TestJSON(t *testing.T) {
	l, out := newTestLog(t, Options{Format: JSON})
	l.Logger("core").Info("a\nb", "level", "fake", "n", 7, "err", errors.New("x<y"), "raw", map[string]any{"a": []any{1}})
	klog.ErrorS(errors.New("no"), "It failed", "pod", klog.KRef("a", "b"))
	for line := range strings.Lines(out.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
	}
	first, _, _ := strings.Cut(out.String(), "\n")
	_, first, _ = strings.Cut(first, ",")
	want := `"level":"info","origin":"core","message":"a\nb","level_":"fake","n":7,"err":"x<y","raw":{"a":[1]}}`
	if first != want {
		t.Errorf("got  %s\nwant %s", first, want)
	}
}

func TestFile(t *testing.T) {
	for name, both := range map[string]bool{"alone": false, "and standard error": true} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "logs", "k3m.log")
			l, out := newTestLog(t, Options{File: file, AlsoStderr: both})
			l.Logger("core").Info("hello")
			info, err := os.Stat(file)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, mode %v", err, info.Mode())
			}
			text, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(text), "INFO  core: hello\n") {
				t.Errorf("%v: %q", err, text)
			}
			if strings.Contains(out.String(), "hello") != both {
				t.Errorf("standard error got %q", out)
			}
		})
	}
}

func TestFileIsRotated(t *testing.T) {
	dir := t.TempDir()
	l, _ := newTestLog(t, Options{File: filepath.Join(dir, "k3m.log")})
	core, big := l.Logger("core"), strings.Repeat("x", maxText)
	for range fileMegabytes<<20/maxText + 2 {
		core.Info(big)
	}
	found, err := filepath.Glob(filepath.Join(dir, "k3m-*"))
	if err != nil || len(found) == 0 {
		t.Errorf("no older log beside it: %v, %v", found, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "k3m.log")); err != nil || info.Size() > 1<<20 {
		t.Errorf("the log has %d bytes, %v", info.Size(), err)
	}
}

func TestFileRefused(t *testing.T) {
	dir := t.TempDir()
	_, err := New(Options{File: dir, Stderr: os.Stderr})
	if err == nil || !strings.Contains(err.Error(), "name another file with --log") || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

func TestQuiet(t *testing.T) {
	l, out := newTestLog(t, Options{})
	l.Quiet(true)
	l.Logger("core").Info("a")
	l.Logger("core").Warn("b")
	l.Quiet(false)
	l.Logger("core").Info("c")
	if got := without(t, out); got != "WARN  core: b\nINFO  core: c\n" {
		t.Errorf("got %q", got)
	}
}

func TestRecent(t *testing.T) {
	l, _ := newTestLog(t, Options{})
	logger := l.Components().ResetNamed("addon.x")
	for i := range 5000 {
		logger.Info(fmt.Sprintf("line %d", i))
	}
	var lines []string
	for line := range l.Recent().Lines(t.Context(), "addon.x", -1, false) {
		lines = append(lines, string(line))
	}
	if n := len(strings.Join(lines, "")); n > recentBytes || n < recentBytes/2 {
		t.Errorf("%d bytes are kept", n)
	}
	next := 2
	for line := range l.Recent().Lines(t.Context(), "addon.x", 2, true) {
		if want := fmt.Sprintf("line %d\n", 5000-next); next > 0 && !strings.HasSuffix(string(line), want) {
			t.Errorf("got %q, want %q", line, want)
		}
		if next--; next == 0 {
			go logger.Info("one more")
		}
		if next < 0 {
			if !strings.HasSuffix(string(line), "one more\n") {
				t.Errorf("got %q", line)
			}
			break
		}
	}
}
