package ingress

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/test/harness"
	"github.com/k3m-io/k3m/test/images"
)

var lab *harness.Lab

func TestMain(m *testing.M) {
	os.Exit(harness.Main(func() int { return run(m) }))
}

func run(m *testing.M) (code int) {
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // the tests make what the API server warns of
	var err error
	if lab, err = harness.Open(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := lab.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	return m.Run()
}

var archives struct {
	once sync.Once
	dir  string
	err  error
}

// preload puts the test images where a node finds them.
func preload(t *testing.T, h *harness.Host) {
	t.Helper()
	archives.once.Do(func() {
		archives.dir = filepath.Join(lab.Dir, "images")
		var root string
		if root, archives.err = harness.Root(); archives.err == nil {
			archives.err = images.Build(context.Background(), archives.dir, filepath.Join(root, "test", "images"))
		}
	})
	if archives.err != nil {
		t.Fatal(archives.err)
	}
	dir := filepath.Join(h.DataDir, "agent", "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(archives.dir)); err != nil {
		t.Fatal(err)
	}
}

// within is a context that ends after d, or with the test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("not within %s", d))
	t.Cleanup(cancel)
	return ctx
}

// patience bounds each wait for something that takes moments, on a machine that is busy with
// other things.
const patience = 30 * time.Second

// eventually tries until there is no error, and fails the test with the last one. It is for
// what has no event to wait for: that traffic goes another way.
func eventually(t *testing.T, what string, try func(context.Context) error) {
	t.Helper()
	if err := keepTrying(within(t, patience), try); err != nil {
		t.Fatalf("wait until %s: %v", what, err)
	}
}

func keepTrying(ctx context.Context, try func(context.Context) error) error {
	var last error
	for {
		err := try(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() == nil || last == nil:
			last = err // not that of a try that the end of ctx cut short
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		}
	}
}
