package containerd

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/log"
	"github.com/hashicorp/go-hclog"
	"github.com/sirupsen/logrus"
)

// logThrough sends what containerd logs in this process to logger, each record at its own
// level, but for its information (a line for each pod and image, and some 90 at each start)
// and chatter, which are for those who debug.
func logThrough(logger hclog.Logger) error {
	level := log.WarnLevel
	switch logger.GetLevel() {
	case hclog.Trace:
		level = log.TraceLevel
	case hclog.Debug:
		level = log.DebugLevel
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

// chatter is how what containerd warns of at each start begins: nothing that an operator of
// k3m could want or change. The network's configuration comes with the cni component.
var chatter = []string{"failed check for fsverity support", "failed to load cni during init", "failed to reload cni configuration after receiving fs change event"}

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
	if slices.ContainsFunc(chatter, func(beginning string) bool { return strings.HasPrefix(e.Message, beginning) }) {
		level = hclog.Debug
	}
	h.logger.Log(level, e.Message, pairs...)
	return nil
}

func hclogLevel(l logrus.Level) hclog.Level {
	switch l {
	case logrus.TraceLevel:
		return hclog.Trace
	case logrus.DebugLevel, logrus.InfoLevel:
		return hclog.Debug
	case logrus.WarnLevel:
		return hclog.Warn
	default:
		return hclog.Error
	}
}
