package plugintest

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/sdk"
)

// checkMetrics asks a running component that has metrics for them.
func checkMetrics(t *testing.T, p *peer, info sdk.Info) {
	if !info.Has(sdk.AbilityMetrics) {
		t.Skip("the component measures nothing: it is no MetricsWriter")
	}
	text, err := p.Metrics(t.Context())
	if err != nil {
		t.Fatalf("ask for metrics: %v", err)
	}
	if len(text) > sdk.MaxMetricsBytes {
		t.Errorf("%d bytes of metrics, want at most %d", len(text), sdk.MaxMetricsBytes)
	}
	if err := checkExposition(string(text)); err != nil {
		t.Errorf("metrics: %v", err)
	}
}

// The lines of Prometheus' text exposition format, version 0.0.4.
var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*(\{[ \t]*(?:` + labelPair + `(?:,[ \t]*` + labelPair + `)*,?[ \t]*)?\})?[ \t]+(\S+)(?:[ \t]+(-?[0-9]+))?[ \t]*$`)
	typeLine   = regexp.MustCompile(`^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped)$`)
)

const labelPair = `[a-zA-Z_][a-zA-Z0-9_]*[ \t]*=[ \t]*"(?:[^"\\]|\\.)*"[ \t]*`

// checkExposition finds the first line that is not of the text format.
func checkExposition(text string) error {
	if text != "" && !strings.HasSuffix(text, "\n") {
		return errors.New("the last line has no end")
	}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.TrimSpace(line) == "":
		case strings.HasPrefix(line, "# TYPE "):
			if !typeLine.MatchString(line) {
				return fmt.Errorf("line %d: %.200q is no type", number, line)
			}
		case strings.HasPrefix(line, "#"):
		default:
			parts := sampleLine.FindStringSubmatch(line)
			if parts == nil {
				return fmt.Errorf("line %d: %.200q is no sample", number, line)
			}
			if _, err := strconv.ParseFloat(parts[3], 64); err != nil {
				return fmt.Errorf("line %d: value %.40q is no number", number, parts[3])
			}
		}
	}
	return nil
}
