package containerd

import (
	"fmt"
	"io"
	"slices"

	"github.com/containerd/log"
	"github.com/hashicorp/go-hclog"
	"github.com/sirupsen/logrus"
)

// logThrough sends what containerd logs in this process to logger, each record at its
// own level but for chatter.
func logThrough(logger hclog.Logger) error {
	level := log.InfoLevel
	switch logger.GetLevel() {
	case hclog.Trace:
		level = log.TraceLevel
	case hclog.Debug:
		level = log.DebugLevel
	case hclog.Warn:
		level = log.WarnLevel
	case hclog.Error, hclog.Off:
		level = log.ErrorLevel
	}
	if err := log.SetLevel(level.String()); err != nil {
		return fmt.Errorf("set containerd's log level: %w", err)
	}
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.ReplaceHooks(logrus.LevelHooks{})
	std.AddHook(logHook{logger})
	return nil
}

// chatter is what containerd logs at each start, at the level of information, about 60
// plugins: nothing that an operator of k3m could want or change.
var chatter = []string{"loading plugin", "skip loading plugin", "starting cri plugin"}

// logHook is a logrus hook that writes to a host's logger.
type logHook struct{ logger hclog.Logger }

// Levels says that every record is wanted; the level was set before.
func (logHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire writes one record.
func (h logHook) Fire(e *logrus.Entry) error {
	keys := make([]string, 0, len(e.Data))
	for k := range e.Data {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	pairs := make([]any, 0, 2*len(keys))
	for _, k := range keys {
		v := e.Data[k]
		if err, ok := v.(error); ok {
			v = err.Error()
		}
		pairs = append(pairs, k, v)
	}
	level := hclogLevel(e.Level)
	if level == hclog.Info && slices.Contains(chatter, e.Message) {
		level = hclog.Debug
	}
	h.logger.Log(level, e.Message, pairs...)
	return nil
}

func hclogLevel(l logrus.Level) hclog.Level {
	switch l {
	case logrus.TraceLevel:
		return hclog.Trace
	case logrus.DebugLevel:
		return hclog.Debug
	case logrus.InfoLevel:
		return hclog.Info
	case logrus.WarnLevel:
		return hclog.Warn
	default:
		return hclog.Error
	}
}
