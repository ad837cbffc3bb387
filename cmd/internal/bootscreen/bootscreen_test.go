package bootscreen

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// terminal understands what a screen sends.
type terminal struct {
	lines []string
	row   int
}

var escape = regexp.MustCompile(`^\x1b\[(\d*)([AJ])`)

func (t *terminal) Write(p []byte) (int, error) {
	for rest := string(p); rest != ""; {
		if m := escape.FindStringSubmatch(rest); m != nil {
			switch m[2] {
			case "A":
				up, _ := strconv.Atoi(m[1])
				t.row -= up
			case "J":
				t.lines = t.lines[:t.row]
			}
			rest = rest[len(m[0]):]
			continue
		}
		if rest[0] == '\r' {
			rest = rest[1:]
			continue
		}
		line, after, ok := strings.Cut(rest, "\n")
		if !ok {
			return 0, fmt.Errorf("half a line: %q", rest)
		}
		t.lines, t.row = append(t.lines[:t.row], line), t.row+1
		rest = after
	}
	return len(p), nil
}

func TestScreen(t *testing.T) {
	out := &terminal{}
	s := New(out, func() (int, int) { return 40, 25 })
	say := func(line string) {
		t.Helper()
		if n, err := s.Write([]byte(line + "\n")); err != nil || n != len(line)+1 {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	say("before")
	s.Show([]Step{{Name: "datastore", State: Working, Message: "opens\x1b[2J the database"}, {Name: "API", Message: "waits for the datastore, which is long to say"}})
	say("log 1")
	s.Show([]Step{{Name: "datastore", State: Done, After: 240 * time.Millisecond}, {Name: "API", State: Failed, Message: "no"}, {Name: "node", Message: "waits"}})
	say("log 2")
	s.Close()
	say("after")
	want := []string{
		"before", "log 1", "log 2",
		"  ✓ datastore    0.2s",
		"  ✗ API                no",
		"  · node               waits",
		"after",
	}
	if got := strings.Join(out.lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the terminal shows\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestLinesFitAndAreNotObeyed(t *testing.T) {
	var sent strings.Builder
	New(&sent, func() (int, int) { return 40, 25 }).Show([]Step{
		{Name: "datastore", State: Working, Message: "opens\x1b[2J the database of this node"},
	})
	if got, want := sent.String(), "  ▸ datastore          opens [2J the d…\n"; got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestLowTerminal(t *testing.T) {
	steps := []Step{{Name: "a", State: Done}, {Name: "b", State: Working}, {Name: "c", State: Done}, {Name: "d"}}
	for rows, want := range map[int]string{25: "abcd", 5: "abcd", 4: "bcd", 3: "bd", 2: "b", 1: "b", 0: "b"} {
		out := &terminal{}
		New(out, func() (int, int) { return 40, rows }).Show(steps)
		got := ""
		for _, line := range out.lines {
			got += strings.Fields(line)[1]
		}
		if got != want {
			t.Errorf("%d rows show %q, want %q", rows, got, want)
		}
	}
}
