package components

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/k3m-io/k3m/components/launch"
	"golang.org/x/sys/unix"
)

// What the launcher refuses, whatever the core has checked before.
func TestLauncherRefuses(t *testing.T) {
	script := func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		make func(t *testing.T, path string)
		want string
	}{
		"a script":        {script, "is not an ELF executable; a plugin can't be a script"},
		"a link":          {func(t *testing.T, path string) { link("plugin", built.plugin)(t, filepath.Dir(path)) }, "too many levels of symbolic links"},
		"a directory":     {func(t *testing.T, path string) { _ = os.Mkdir(path, 0o755) }, "is not a regular file"},
		"nothing":         {func(*testing.T, string) {}, "no such file"},
		"a writable file": {func(t *testing.T, path string) { script(t, path); chmod("plugin", 0o757)(t, filepath.Dir(path)) }, "can be changed by other users"},
		"another's file":  {func(t *testing.T, path string) { script(t, path); chown("plugin", 12345)(t, filepath.Dir(path)) }, "can be changed by other users (owner 12345"},
		"a fifo":          {func(t *testing.T, path string) { _ = unix.Mkfifo(path, 0o644) }, "is not a regular file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			path := filepath.Join(n.dir, "plugin")
			tt.make(t, path)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, err := startProcess(ctx, processSpec{
				launcher: built.launcher, attr: ownSession(), socketDir: n.dir, output: newOutput(hclog.NewNullLogger()),
				spec:         launch.Spec{Path: path, Args: []string{path}, SHA256: someDigest, UID: -1, GID: -1},
				startTimeout: 5 * time.Second,
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestBackoffGrowsAndResets(t *testing.T) {
	var b backoff
	var last time.Duration
	for i := range 12 {
		d := b.next(0, false)
		if i > 0 && d < last && last < maxDelay*8/10 {
			t.Errorf("delay %d is %v, after %v", i, d, last)
		}
		if d > maxDelay*13/10 {
			t.Errorf("delay %d is %v", i, d)
		}
		if b.crashLoop() != (i+1 >= crashLoopAfter) {
			t.Errorf("crash loop %v after %d failures", b.crashLoop(), i+1)
		}
		last = d
	}
	if d := b.next(healthyAfter, false); d > 100*time.Millisecond || b.crashLoop() {
		t.Errorf("after a healthy time the delay is %v", d)
	}
	b.next(0, false)
	if d := b.next(healthyUntilKilled, true); d > 100*time.Millisecond {
		t.Errorf("after a kill from outside the delay is %v", d)
	}
	b.next(0, false)
	if d := b.next(healthyUntilKilled, false); d < 100*time.Millisecond {
		t.Errorf("after a crash the delay is %v", d)
	}
}
