package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/test/harness"
)

// options are what the command line says.
type options struct {
	focus, skip string
	procs       int
	server      string
	timeout     time.Duration
	prepare     bool
}

func main() {
	harness.Roles()
	var o options
	flag.StringVar(&o.focus, "focus", "", "run the tests whose full names this regular expression matches; default: those of focus.txt")
	flag.StringVar(&o.skip, "skip", "", "of these, leave out what this regular expression matches, beside those of left-out.md")
	flag.IntVar(&o.procs, "procs", 4, "how many tests run at once")
	flag.StringVar(&o.server, "server", "", "further arguments of k3m server, separated by blanks")
	flag.DurationVar(&o.timeout, "timeout", 3*time.Hour, "end the tests after this time")
	flag.BoolVar(&o.prepare, "prepare", false, "build what the tests need, and stop there")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := conformance(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

// conformance prepares what the tests need, runs them, and prints how they went.
func conformance(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("the tests make network namespaces and containers and need root: run `sudo make conformance`")
	}
	root, err := harness.Root()
	if err != nil {
		return err
	}
	s := suiteAt(root)
	if err := s.prepare(ctx); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(s.source, "left-out.md"))
	if err != nil {
		return err
	}
	leftOut, err := parseLeftOut(string(text))
	if err != nil {
		return fmt.Errorf("read left-out.md: %w", err)
	}
	names, err := s.tests(ctx)
	if err != nil {
		return err
	}
	if unknown := unmatched(leftOut, names); len(unknown) > 0 {
		return fmt.Errorf("left-out.md names tests that don't exist: %s", strings.Join(unknown, "; "))
	}
	if o.prepare {
		return nil
	}
	if o.focus == "" {
		if o.focus, err = defaultFocus(filepath.Join(s.source, "focus.txt")); err != nil {
			return err
		}
	}
	skip := skipPatterns(leftOut)
	if o.skip != "" {
		skip = append(skip, o.skip)
	}
	tests, err := s.run(ctx, o, skip)
	if tests == nil {
		return err
	}
	sum := sumUp(tests)
	sum.print(os.Stdout, s.out)
	return errors.Join(sum.verdict(), err)
}

// defaultFocus joins the lines of a file, each a regular expression; blank lines and lines that begin with # are
// left out.
func defaultFocus(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var patterns []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			patterns = append(patterns, line)
		}
	}
	return strings.Join(patterns, "|"), nil
}
