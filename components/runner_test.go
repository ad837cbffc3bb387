package components

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

// What comes over gRPC in pieces of any size is slowed down and cut like the rest, but
// for what the process leaves behind.
func TestOutputIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exiting, exited := context.WithCancel(context.Background())
		longest := 0
		w := pacedWriter{
			to: &lineWriter{line: func(line string) { longest = max(longest, len(line)) }},
			of: &launchRunner{pace: rate.NewLimiter(outputPerSecond, outputBurst), exiting: exiting},
		}
		write := func() time.Duration {
			start := time.Now()
			for range 5 {
				if n, err := w.Write(make([]byte, 4<<20)); n != 4<<20 || err != nil {
					t.Errorf("wrote %d, %v", n, err)
				}
			}
			return time.Since(start)
		}
		if took := write(); took.Round(time.Second) != 12*time.Second {
			t.Errorf("20 MiB took %s, want 12s", took)
		}
		if longest != maxLogLine {
			t.Errorf("a line of %d bytes, want %d", longest, maxLogLine)
		}
		exited()
		if took := write(); took != 0 {
			t.Errorf("what a process left behind took %s", took)
		}
	})
}
