package metricsserver

import (
	"bytes"
	"flag"
	"fmt"
	"io"

	"github.com/hashicorp/go-hclog"
	"k8s.io/klog/v2"
)

// captureKlog sends what metrics-server, the API machinery and client-go log through klog
// to log, with its severity; their information counts as debug. klog is global to the
// process, which runs one component.
func captureKlog(log hclog.Logger) error {
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
	for severity, level := range map[string]hclog.Level{
		"INFO": hclog.Debug, "ERROR": hclog.Error, "FATAL": hclog.Error,
	} {
		klog.SetOutputBySeverity(severity, log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: level}))
	}
	klog.SetOutputBySeverity("WARNING", &warnings{
		real:    log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		chatter: log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	})
	return nil
}

// warnings tells apart what the API machinery warns of at each start: metrics-server's
// scheme knows a version of the API that it doesn't serve.
type warnings struct{ real, chatter io.Writer }

// Write implements io.Writer; klog writes one record at a time.
func (w *warnings) Write(record []byte) (int, error) {
	if bytes.Contains(record, []byte("Skipping API metrics.k8s.io/")) {
		return w.chatter.Write(record)
	}
	return w.real.Write(record)
}
