package harness

import (
	"fmt"
	"os"
	"slices"
)

// Bench is a TB for programs that are no tests. A fatal error panics with Abort, after
// which Close must still be called.
type Bench struct {
	failed   bool
	cleanups []func()
}

// Abort is the value that Bench.Fatalf panics with.
type Abort struct{ Reason string }

// Helper does nothing.
func (b *Bench) Helper() {}

// Logf writes to standard error.
func (b *Bench) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Errorf writes to standard error and marks the run as failed.
func (b *Bench) Errorf(format string, args ...any) {
	b.failed = true
	b.Logf(format, args...)
}

// Fatalf marks the run as failed and panics with Abort.
func (b *Bench) Fatalf(format string, args ...any) {
	b.failed = true
	panic(Abort{fmt.Sprintf(format, args...)})
}

// Cleanup keeps a function for Close.
func (b *Bench) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }

// Failed tells whether something went wrong.
func (b *Bench) Failed() bool { return b.failed }

// Name is "bench".
func (b *Bench) Name() string { return "bench" }

// Close runs what was kept, the last first.
func (b *Bench) Close() {
	for _, f := range slices.Backward(b.cleanups) {
		f()
	}
	b.cleanups = nil
}
