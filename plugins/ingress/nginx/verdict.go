package nginx

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// verdictError is what nginx says against a configuration.
type verdictError struct {
	text string
	line int // of the configuration; 0 if nginx names none
}

// Error is nginx's own words.
func (e *verdictError) Error() string { return "nginx refuses the configuration: " + e.text }

// place is how nginx names a line: "… in /…/nginx.conf:12".
var place = regexp.MustCompile(` in \S*nginx\.conf:(\d+)`)

// newVerdict reads what nginx -t printed.
func newVerdict(output string) *verdictError {
	v := &verdictError{text: firstLine(output)}
	for line := range strings.Lines(output) {
		level, text := parseLine(strings.TrimSpace(line))
		if level != hclog.Error {
			continue
		}
		v.text = text
		if found := place.FindStringSubmatch(text); found != nil {
			v.line, _ = strconv.Atoi(found[1])
			v.text = strings.Replace(text, found[0], "", 1) // the folder is another one each time
		}
		break
	}
	return v
}

// errorLine is a line of nginx's error log: with a time and the process's numbers, or, from
// before it reads its configuration, without.
var errorLine = regexp.MustCompile(`^(?:\d{4}/\d\d/\d\d \d\d:\d\d:\d\d |nginx: )\[(\w+)\](?: \d+#\d+:)? ?(.*)$`)

// parseLine reads a line of nginx's error log. What a client or a backend did wrong is no
// error of the component's.
func parseLine(line string) (hclog.Level, string) {
	found := errorLine.FindStringSubmatch(line)
	if found == nil {
		return hclog.Warn, line
	}
	switch found[1] {
	case "debug", "info":
		return hclog.Debug, found[2]
	case "notice":
		return hclog.Debug, found[2]
	case "warn", "error":
		return hclog.Warn, found[2]
	}
	return hclog.Error, found[2] // crit, alert, emerg
}
