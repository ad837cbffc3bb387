// Package bootscreen shows on a terminal how far a start is: a block of steps below the log's
// lines, which scroll by above it as they always do.
package bootscreen

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// State is how far a step is.
type State int

// The states of a step.
const (
	// Waiting steps have not begun; the message says what for they wait.
	Waiting State = iota
	// Working steps have begun.
	Working
	// Done steps are done.
	Done
	// Failed steps need an operator.
	Failed
)

var marks = map[State]string{Waiting: "·", Working: "▸", Done: "✓", Failed: "✗"}

// Step is a line of the block.
type Step struct {
	Name  string
	State State
	// After is how long after the start the step was done.
	After time.Duration
	// Message says what a step waits for or does; it is not shown when the step is Done.
	Message string
}

// Screen is a terminal with the block at its end. What others write to the terminal meanwhile has
// to come through Write. All methods may be called by any number of goroutines.
type Screen struct {
	out  io.Writer
	size func() (columns, rows int)

	mu     sync.Mutex
	steps  []Step
	drawn  int // lines of the block that are on the terminal
	closed bool
}

// New makes a screen without a block. size gives the terminal's size: lines are cut to its width,
// since one that wraps could not be taken back, and steps are left out that don't fit, those that
// are done first.
func New(out io.Writer, size func() (columns, rows int)) *Screen {
	return &Screen{out: out, size: size}
}

// Write writes whole lines above the block.
func (s *Screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.drawn == 0 {
		return s.out.Write(lines)
	}
	// In one go: a terminal that shows the half of it flickers.
	var b bytes.Buffer
	s.erase(&b)
	b.Write(lines)
	s.draw(&b)
	if _, err := s.out.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(lines), nil
}

// Show replaces the block.
func (s *Screen) Show(steps []Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || slices.Equal(steps, s.steps) {
		return
	}
	s.steps = slices.Clone(steps)
	var b bytes.Buffer
	s.erase(&b)
	s.draw(&b)
	_, _ = s.out.Write(b.Bytes()) // a terminal that is gone is no reason to stop
}

// Close leaves the block as it is on the terminal; what is written then follows it.
func (s *Screen) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// erase takes the block back: up to its first line, and away with all below.
func (s *Screen) erase(b *bytes.Buffer) {
	if s.drawn > 0 {
		fmt.Fprintf(b, "\x1b[%dA\r\x1b[J", s.drawn)
	}
	s.drawn = 0
}

func (s *Screen) draw(b *bytes.Buffer) {
	columns, rows := s.size()
	steps := fit(s.steps, rows-1) // the cursor's own row
	width := 0
	for _, step := range steps {
		width = max(width, utf8.RuneCountInString(step.Name))
	}
	for _, step := range steps {
		after := ""
		text := step.Message
		if step.State == Done {
			after, text = fmt.Sprintf("%.1fs", step.After.Seconds()), ""
		}
		line := fmt.Sprintf("  %s %-*s  %6s  %s", marks[step.State], width, step.Name, after, text)
		b.WriteString(cut(strings.TrimRight(line, " "), columns))
		b.WriteByte('\n')
	}
	s.drawn = len(steps)
}

// fit leaves out steps until at most rows are left.
func fit(steps []Step, rows int) []Step {
	surplus := len(steps) - max(1, rows)
	if surplus <= 0 {
		return steps
	}
	kept := slices.DeleteFunc(slices.Clone(steps), func(step Step) bool {
		if surplus <= 0 || step.State != Done {
			return false
		}
		surplus--
		return true
	})
	return kept[:len(kept)-max(0, surplus)]
}

// cut is a line that fits, without what a terminal would obey.
func cut(line string, columns int) string {
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, line)
	if utf8.RuneCountInString(line) < columns {
		return line
	}
	return string([]rune(line)[:max(0, columns-2)]) + "…"
}
