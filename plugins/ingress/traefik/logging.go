package traefik

import (
	"flag"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/sirupsen/logrus"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// captureLogs sends what Traefik (logrus) and client-go (klog) log to log. Both are global to the process, which runs one
// component.
func captureLogs(log hclog.Logger, level string) error {
	parsed, err := logrus.ParseLevel(level)
	if err != nil {
		return fmt.Errorf("log level: %w", err)
	}
	logrus.SetLevel(parsed)
	logrus.SetOutput(io.Discard)
	logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{})
	logrus.AddHook(forward{log})

	// The API warns at each request that v1 Endpoints are deprecated, which Traefik's provider of its own resources reads.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
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
		// A watch that broke and is made again is an error to client-go, and nothing to an operator.
		"INFO": hclog.Debug, "WARNING": hclog.Debug, "ERROR": hclog.Debug, "FATAL": hclog.Error,
	} {
		klog.SetOutputBySeverity(severity, log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: level}))
	}
	return nil
}

// forward is a logrus hook.
type forward struct{ log hclog.Logger }

// Levels implements logrus.Hook.
func (forward) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (f forward) Fire(entry *logrus.Entry) error {
	var fields []any
	for key, value := range entry.Data {
		fields = append(fields, key, value)
	}
	level := map[logrus.Level]hclog.Level{
		logrus.PanicLevel: hclog.Error, logrus.FatalLevel: hclog.Error, logrus.ErrorLevel: hclog.Error,
		logrus.WarnLevel: hclog.Warn, logrus.InfoLevel: hclog.Info,
	}[entry.Level]
	// A listener that is closed, when the component stops, is an error to Traefik.
	if level == hclog.NoLevel || strings.Contains(entry.Message, net.ErrClosed.Error()) {
		level = hclog.Debug
	}
	f.log.Log(level, entry.Message, fields...)
	return nil
}
