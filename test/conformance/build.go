package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// suite is what the tests are made of, in the repository and below dist/.
type suite struct {
	// root is the repository, source this package's folder, out is dist/conformance.
	root, source, out string
}

func suiteAt(root string) *suite {
	return &suite{root: root, source: filepath.Join(root, "test", "conformance"), out: filepath.Join(root, "dist", "conformance")}
}

// bin is the path of an executable that prepare builds.
func (s *suite) bin(name string) string { return filepath.Join(s.out, "bin", name) }

// executables are built from the module in ./suite.
var executables = []struct{ name, pkg string }{
	{"ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"},
	{"e2e.test", "k8s.io/kubernetes/test/e2e"},
	{"agnhost", "k8s.io/kubernetes/test/images/agnhost"},
	{"regression-issue-74839", "k8s.io/kubernetes/test/images/regression-issue-74839"},
}

// prepare builds what is not there yet or out of date.
func (s *suite) prepare(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(s.out, "bin"), 0o755); err != nil {
		return err
	}
	g, building := errgroup.WithContext(ctx)
	g.Go(func() error { return s.buildExecutables(building) })
	g.Go(func() error {
		if err := s.buildRoot(building); err != nil {
			return fmt.Errorf("make the root of the images: %w", err)
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return s.buildImages(ctx)
}

func (s *suite) buildExecutables(ctx context.Context) error {
	for _, e := range executables {
		if err := s.build(ctx, e.name, e.pkg); err != nil {
			return fmt.Errorf("build %s: %w", e.name, err)
		}
	}
	// It is this repository's own, so the go command knows whether it is out of date.
	if err := s.golang(ctx, s.root, "build", "-o", s.bin("coredns"), "./test/conformance/coredns"); err != nil {
		return fmt.Errorf("build coredns: %w", err)
	}
	if err := s.buildPause(ctx); err != nil {
		return fmt.Errorf("build pause: %w", err)
	}
	return nil
}

// build builds an executable of the suite's module. To link e2e.test takes half a minute even when nothing has
// changed, so what it was built from is kept beside it.
func (s *suite) build(ctx context.Context, name, pkg string) error {
	module := filepath.Join(s.source, "suite")
	return s.cached(s.bin(name), []string{runtimeVersion(), pkg}, []string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum")}, func() error {
		args := []string{"build"}
		if strings.HasSuffix(name, ".test") {
			args = []string{"test", "-c", "-vet=off"} // to vet all of Kubernetes takes as long as to compile it
		}
		return s.golang(ctx, module, append(args, "-ldflags=-s -w", "-o", s.bin(name), pkg)...)
	})
}

// golang runs the go command for static executables.
func (s *suite) golang(ctx context.Context, dir string, args ...string) error {
	return command(ctx, dir, []string{"CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false", "GOTOOLCHAIN=local"}, "go", args...)
}

// command runs a program; its output is quoted when it fails.
func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		const enough = 4 << 10
		return fmt.Errorf("%s: %w: %s", name, err, out[max(0, len(out)-enough):])
	}
	return nil
}

// cached calls make unless a target is there that was made of the same words and files.
func (s *suite) cached(target string, words, files []string, make func() error) error {
	key, err := digest(words, files)
	if err != nil {
		return err
	}
	note := target + ".key"
	if had, err := os.ReadFile(note); err == nil && string(had) == key {
		if _, err := os.Stat(target); err == nil {
			return nil
		}
	}
	if err := os.Remove(note); err != nil && !os.IsNotExist(err) {
		return err
	}
	fmt.Fprintf(os.Stderr, "conformance: making %s\n", strings.TrimPrefix(target, s.root+"/"))
	if err := make(); err != nil {
		return err
	}
	return os.WriteFile(note, []byte(key), 0o644)
}

func digest(words, files []string) (string, error) {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(words); err != nil {
		return "", err
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		n, err := io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "\n%d bytes\n", n)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
