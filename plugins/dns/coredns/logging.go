package coredns

import (
	"bytes"
	"log"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// logTo is where CoreDNS's log goes now; Go's standard logger, which CoreDNS and caddy
// write to, is the process's.
var logTo atomic.Pointer[hclog.Logger]

var captureOnce sync.Once

// captureLogs sends what CoreDNS logs to log, at its own level. klog's records of
// client-go come along: CoreDNS's kubernetes plugin sends them there.
func captureLogs(to hclog.Logger) {
	logTo.Store(&to)
	captureOnce.Do(func() {
		log.SetFlags(0)
		log.SetPrefix("")
		log.SetOutput(levelled{})
	})
}

// levels are the words that CoreDNS puts in front of a line.
var levels = []struct {
	prefix []byte
	level  hclog.Level
}{
	{[]byte("[INFO] "), hclog.Info},
	{[]byte("[WARNING] "), hclog.Warn},
	{[]byte("[ERROR] "), hclog.Error},
	{[]byte("[FATAL] "), hclog.Error},
	{[]byte("[DEBUG] "), hclog.Debug},
}

// expected are lines that this component makes CoreDNS say and that mean nothing bad here.
var expected = [][]byte{
	// The kubernetes plugin is not waited for; see cluster.go.
	[]byte("starting server with unsynced Kubernetes API"),
	[]byte("waiting for Kubernetes API before starting server"),
}

// levelled writes each line of CoreDNS's to logTo.
type levelled struct{}

func (levelled) Write(line []byte) (int, error) {
	to := logTo.Load()
	level, text := hclog.Info, bytes.TrimSpace(line)
	for _, l := range levels {
		if rest, ok := bytes.CutPrefix(text, l.prefix); ok {
			level, text = l.level, rest
			break
		}
	}
	for _, words := range expected {
		if bytes.Contains(text, words) {
			level = hclog.Debug
		}
	}
	if (*to).IsInfo() || level > hclog.Info {
		(*to).Log(level, string(text))
	}
	return len(line), nil
}
