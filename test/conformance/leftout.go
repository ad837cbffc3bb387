package main

import (
	"fmt"
	"regexp"
	"strings"
)

// leftOut is a test, or a group of tests, that is not run.
type leftOut struct {
	// text is part of the full names of the tests, to the letter.
	text string
	// reason is the heading that it stands below.
	reason string
}

// parseLeftOut reads left-out.md: below headings of the second level, which are the reasons, each item of a list
// that begins with a code span is a test that is left out. What else stands there is for people.
func parseLeftOut(text string) ([]leftOut, error) {
	var found []leftOut
	reason, number := "", 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\n")
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			reason = strings.TrimSpace(heading)
			continue
		}
		item, ok := strings.CutPrefix(line, "- `")
		if !ok {
			continue
		}
		name, _, closed := strings.Cut(item, "`")
		switch {
		case !closed:
			return nil, fmt.Errorf("line %d: the code span does not end on its line", number)
		case strings.TrimSpace(name) == "":
			return nil, fmt.Errorf("line %d: an empty name would leave out every test", number)
		case reason == "":
			return nil, fmt.Errorf("line %d: no heading above says why it is left out", number)
		}
		found = append(found, leftOut{text: name, reason: reason})
	}
	return found, nil
}

// skipPatterns are regular expressions for what is left out.
func skipPatterns(list []leftOut) []string {
	var patterns []string
	for _, l := range list {
		patterns = append(patterns, regexp.QuoteMeta(l.text))
	}
	return patterns
}

// unmatched gives what is in none of the names: a test that upstream has renamed or removed.
func unmatched(list []leftOut, names []string) []string {
	var unknown []string
	for _, l := range list {
		known := false
		for _, name := range names {
			if known = strings.Contains(name, l.text); known {
				break
			}
		}
		if !known {
			unknown = append(unknown, l.text)
		}
	}
	return unknown
}
