// Package klogs puts what libraries log through klog into a component's own log.
package klogs

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/go-hclog"
	"k8s.io/klog/v2"
)

// Capture sends what libraries (client-go, for one) log through klog to log, with its severity;
// their information counts as debug, and so does a warning that holds one of the phrases in
// chatter. klog is global to the process, which runs one component.
func Capture(log hclog.Logger, chatter ...string) error {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{
		"logtostderr": "false", "alsologtostderr": "false", "stderrthreshold": "FATAL",
		"one_output": "true", "skip_headers": "true",
	} {
		if err := flags.Set(name, value); err != nil {
			return fmt.Errorf("set klog's %s: %w", name, err)
		}
	}
	for severity, level := range map[string]hclog.Level{"INFO": hclog.Debug, "ERROR": hclog.Error, "FATAL": hclog.Error} {
		klog.SetOutputBySeverity(severity, levelWriter(log, level))
	}
	klog.SetOutputBySeverity("WARNING", &warnings{levelWriter(log, hclog.Warn), levelWriter(log, hclog.Debug), chatter})
	return nil
}

func levelWriter(log hclog.Logger, level hclog.Level) io.Writer {
	return log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: level})
}

// warnings tells warnings from chatter.
type warnings struct {
	warn, debug io.Writer
	chatter     []string
}

// Write implements io.Writer; klog writes one record at a time.
func (w *warnings) Write(record []byte) (int, error) {
	if slices.ContainsFunc(w.chatter, func(phrase string) bool { return bytes.Contains(record, []byte(phrase)) }) {
		return w.debug.Write(record)
	}
	return w.warn.Write(record)
}
