package klogs

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"k8s.io/klog/v2"
)

func TestCapture(t *testing.T) {
	var out bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug, DisableTime: true})
	if err := Capture(log, "is only chatter"); err != nil {
		t.Fatal(err)
	}
	klog.Info("an information")
	klog.Warning("a warning")
	klog.Warning("this is only chatter")
	klog.Error("an error")
	klog.Flush()
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := "[DEBUG] an information|[WARN] a warning|[DEBUG] this is only chatter|[ERROR] an error"
	if strings.Join(got, "|") != want {
		t.Errorf("logged %q", got)
	}
}
