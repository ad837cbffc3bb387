package datastore

import (
	"io"
	"sync"

	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
)

// redirectLogs sends what kine logs, through logrus' global logger, where everything else of
// this process goes. kine is the only one here that uses logrus.
var redirectLogs = sync.OnceFunc(func() {
	logrus.SetOutput(io.Discard)
	logrus.SetLevel(logrus.InfoLevel)
	logrus.AddHook(klogHook{})
})

// klogHook is a logrus.Hook. Kine's Info is chatter, but for those who ask for it.
type klogHook struct{}

const kineVerbosity = 2

func (klogHook) Levels() []logrus.Level { return logrus.AllLevels }

func (klogHook) Fire(entry *logrus.Entry) error {
	switch entry.Level {
	case logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel:
		klog.ErrorS(nil, "kine: "+entry.Message)
	case logrus.WarnLevel:
		klog.Warning("kine: " + entry.Message)
	default:
		klog.V(kineVerbosity).InfoS("kine: " + entry.Message)
	}
	return nil
}
