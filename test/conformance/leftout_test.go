package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestParseLeftOut(t *testing.T) {
	got, err := parseLeftOut("# Left out\n\nText with `code`.\n\n## needs two nodes\n\n- `[sig-network] Services` beside\n- no test\n\n## no image\n- `should a.b (c)`\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []leftOut{{"[sig-network] Services", "needs two nodes"}, {"should a.b (c)", "no image"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	patterns := skipPatterns(got)
	if ok, err := regexp.MatchString(patterns[1], "it should a.b (c)"); err != nil || !ok {
		t.Errorf("%s does not match its own name: %v", patterns[1], err)
	}
	if ok, _ := regexp.MatchString(patterns[1], "it should axb (c)"); ok {
		t.Errorf("%s matches another name", patterns[1])
	}
	if unknown := unmatched(got, []string{"x should a.b (c) y"}); !slices.Equal(unknown, []string{"[sig-network] Services"}) {
		t.Errorf("unmatched gives %v", unknown)
	}
}

func TestParseLeftOutRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"- `a`\n":          "line 1: no heading",
		"## why\n- `a\n":   "line 2: the code span",
		"## why\n- ` `\n":  "line 2: an empty name",
		"## why\n\n- ``\n": "line 3: an empty name",
	} {
		if _, err := parseLeftOut(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// TestLeftOutFile has the file that is used in its own form.
func TestLeftOutFile(t *testing.T) {
	text, err := os.ReadFile("left-out.md")
	if err != nil {
		t.Fatal(err)
	}
	list, err := parseLeftOut(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Error("nothing is left out: the form must have changed")
	}
	focus, err := defaultFocus("focus.txt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := regexp.Compile(focus); err != nil || focus == "" {
		t.Errorf("focus.txt: %v", err)
	}
}
