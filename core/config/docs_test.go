package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// manualRow is a row of the manual's table: options, variables, default, effect.
var manualRow = regexp.MustCompile("^\\| (`--[^|]*) \\| ([^|]*) \\| ([^|]*) ?\\| ([^|]+) \\|$")

// codeWord is what stands in backquotes.
var codeWord = regexp.MustCompile("`([^`]+)`")

// TestManual holds docs/configuration.md to the options: each has a row with its variable, its
// default and what it does, and no row is of an option that isn't.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	words := func(cell string) []string {
		var all []string
		for _, m := range codeWord.FindAllStringSubmatch(cell, -1) {
			all = append(all, m[1])
		}
		return all
	}
	defaults := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		row := manualRow.FindStringSubmatch(strings.TrimSpace(line))
		if row == nil {
			continue
		}
		variables := words(row[2])
		for i, flag := range words(row[1]) {
			name := strings.TrimPrefix(flag, "--")
			if lookupOption(name) == nil {
				t.Errorf("the manual has %s, which does not exist", flag)
				continue
			}
			if i >= len(variables) || variables[i] != Variable(name) {
				t.Errorf("the manual gives %s the variables %v, want %s", flag, variables, Variable(name))
			}
			defaults[name] = words(row[3])
		}
	}
	c, err := load(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		documented, ok := defaults[o.name]
		if !ok {
			t.Errorf("the manual lacks --%s", o.name)
			continue
		}
		want := []string(nil)
		switch {
		case o.name == "node-name": // the hostname
		case o.name == "default-local-storage-path":
			want = []string{"<data-dir>/storage"}
		case effective[o.name] != nil:
			want = effective[o.name](c)
		case o.boolean:
			want = []string{"false"}
		default:
			continue
		}
		if !slices.Equal(documented, want) {
			t.Errorf("the manual says that --%s is %v by default; it is %v", o.name, documented, want)
		}
	}
}
