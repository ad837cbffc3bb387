package nftables

import (
	"flag"
	"fmt"
	"io"

	"github.com/hashicorp/go-hclog"
	"k8s.io/klog/v2"
)

// captureKlog sends what client-go logs through klog to log, with its
// severity; its information counts as debug. klog is global to the process, which runs
// one component.
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
		"INFO": hclog.Debug, "WARNING": hclog.Warn, "ERROR": hclog.Error, "FATAL": hclog.Error,
	} {
		klog.SetOutputBySeverity(severity, levelWriter(log, level))
	}
	return nil
}

func levelWriter(log hclog.Logger, level hclog.Level) io.Writer {
	return log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: level})
}
