package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const junitText = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="Kubernetes e2e suite">
    <testcase name="[ReportBeforeSuite]" status="passed"></testcase>
    <testcase name="[It] [sig-network] DNS should resolve" status="passed"></testcase>
    <testcase name="[It] [sig-network] not selected" status="skipped"><skipped message="skipped"></skipped></testcase>
    <testcase name="[It] [sig-network] two nodes" status="skipped"><skipped message="skipped - Requires at least 2 nodes&#xA;(not 1)"></skipped></testcase>
    <testcase name="[It] [sig-network] broken" status="failed"><failure message="no&#xA;  answer" type="failed">long</failure></testcase>
    <testcase name="[It] [sig-network] slow" status="timedout"><error message="A suite timeout occurred" type="timedout">long</error></testcase>
  </testsuite>
</testsuites>`

func TestReadJUnit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "junit.xml")
	if err := os.WriteFile(path, []byte(junitText), 0o644); err != nil {
		t.Fatal(err)
	}
	tests, err := readJUnit(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sumUp(tests)
	var out bytes.Buffer
	sum.print(&out, "dist/conformance")
	want := `skipped  [sig-network] two nodes
         Requires at least 2 nodes (not 1)
FAILED   [sig-network] broken
         no answer
FAILED   [sig-network] slow
         timedout: A suite timeout occurred
1 passed, 2 failed, 1 skipped themselves; ginkgo's log, its report and the node's log are in dist/conformance
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if err := sum.verdict(); err == nil || !strings.HasPrefix(err.Error(), "2 tests") {
		t.Errorf("the verdict is %v", err)
	}
}

func TestVerdict(t *testing.T) {
	if err := sumUp([]test{{name: "a", state: "passed"}, {name: "b", state: "skipped"}}).verdict(); err != nil {
		t.Error(err)
	}
	if err := sumUp([]test{{name: "b", state: "skipped"}}).verdict(); err == nil {
		t.Error("nothing was run, and that is called good")
	}
	if _, err := readJUnit(filepath.Join(t.TempDir(), "none.xml")); err == nil || !strings.Contains(err.Error(), "ginkgo.log") {
		t.Errorf("a missing report: %v", err)
	}
}
