package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// test is how a test went.
type test struct {
	name   string
	state  string // passed, failed or skipped
	reason string // of a failure, or why it skipped itself; one line
}

// junit is the part of ginkgo's report that is read.
type junitReport struct {
	Suites []struct {
		Cases []struct {
			Name    string       `xml:"name,attr"`
			Status  string       `xml:"status,attr"`
			Skipped *junitReason `xml:"skipped"`
			Failure *junitReason `xml:"failure"`
			Error   *junitReason `xml:"error"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

type junitReason struct {
	Message string `xml:"message,attr"`
}

// readJUnit reads ginkgo's report. Tests that were not selected are not in what it gives.
func readJUnit(path string) ([]test, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ginkgo left no report (see %s): %w", filepath.Join(filepath.Dir(path), "ginkgo.log"), err)
	}
	var report junitReport
	if err := xml.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("read ginkgo's report: %w", err)
	}
	var tests []test
	for _, s := range report.Suites {
		for _, c := range s.Cases {
			t := test{name: strings.TrimPrefix(c.Name, "[It] "), state: "passed"}
			switch {
			case c.Failure != nil:
				t.state, t.reason = "failed", oneLine(c.Failure.Message)
			case c.Error != nil:
				t.state, t.reason = "failed", oneLine(c.Status+": "+c.Error.Message)
			case c.Skipped != nil:
				// The message is "skipped" for what was not selected, and "skipped - why" for what skipped itself.
				why, itself := strings.CutPrefix(c.Skipped.Message, "skipped - ")
				if !itself {
					continue
				}
				t.state, t.reason = "skipped", oneLine(why)
			case !strings.HasPrefix(c.Name, "[It] "):
				continue // the suite's own set-up went well
			}
			tests = append(tests, t)
		}
	}
	return tests, nil
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 400 {
		s = string(r[:400]) + " …"
	}
	return s
}

// summary counts how tests went.
type summary struct {
	passed          int
	failed, skipped []test
}

func sumUp(tests []test) summary {
	var s summary
	for _, t := range tests {
		switch t.state {
		case "passed":
			s.passed++
		case "failed":
			s.failed = append(s.failed, t)
		default:
			s.skipped = append(s.skipped, t)
		}
	}
	for _, list := range [][]test{s.failed, s.skipped} {
		slices.SortFunc(list, func(a, b test) int { return strings.Compare(a.name, b.name) })
	}
	return s
}

func (s summary) print(w io.Writer, out string) {
	for _, t := range s.skipped {
		fmt.Fprintf(w, "skipped  %s\n         %s\n", t.name, t.reason)
	}
	for _, t := range s.failed {
		fmt.Fprintf(w, "FAILED   %s\n         %s\n", t.name, t.reason)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped themselves; ginkgo's log, its report and the node's log are in %s\n",
		s.passed, len(s.failed), len(s.skipped), out)
}

// verdict is an error unless tests were run and none failed.
func (s summary) verdict() error {
	switch {
	case len(s.failed) == 1:
		return fmt.Errorf("one test failed")
	case len(s.failed) > 1:
		return fmt.Errorf("%d tests failed", len(s.failed))
	case s.passed == 0:
		return fmt.Errorf("no test was run: the focus matches none, or all were skipped")
	}
	return nil
}
