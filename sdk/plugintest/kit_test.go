package plugintest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

// clock is a component with every ability, in process.
type clock struct{}

func (clock) Info() sdk.Info {
	return sdk.Info{
		Kind: "addon", Name: "clock", Version: "1.0.0", Summary: "tells the time", Scope: sdk.ServerScope, Services: []string{"default/clock"},
		ConfigSchema: json.RawMessage(`{
			"type": "object",
			"properties": {"zone": {"type": "string"}, "port": {"type": "integer", "minimum": 1, "maximum": 65535}},
			"additionalProperties": false}`),
		Commands: []sdk.Command{{Name: "now", Summary: "says what time it is"}},
	}
}

func (clock) ValidateConfig(_ context.Context, raw json.RawMessage) []sdk.ConfigProblem {
	var config struct {
		Zone string `json:"zone"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return []sdk.ConfigProblem{{Message: err.Error()}}
	}
	if _, err := time.LoadLocation(config.Zone); err != nil {
		return []sdk.ConfigProblem{{Path: "zone", Message: err.Error()}}
	}
	return nil
}

func (clock) Run(ctx context.Context, host *sdk.Host) error {
	host.Ready()
	host.Serve(sdk.Endpoint{Service: "default/clock", Addresses: host.Facts().PodGateways, Ports: []sdk.EndpointPort{{Protocol: sdk.TCP, Port: 1313}}})
	<-ctx.Done()
	return nil
}

func (clock) WriteMetrics(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "# HELP clock_ticks_total Ticks.\n# TYPE clock_ticks_total counter\nclock_ticks_total{hand=\"the \\\"long\\\" one\",side=\"\"} 7e3 1395066363000\n\nclock_drift NaN\n")
	return err
}

func (clock) Cleanup(context.Context, *sdk.Host) error { return nil }

func (clock) Command(context.Context, string, []string, sdk.CommandPaths) error { return nil }

func TestGoodPluginsPass(t *testing.T) {
	t.Run("a component with every ability", func(t *testing.T) {
		plugintest.InProcess(t, plugintest.Options{
			New:    func() sdk.Plugin { return clock{} },
			Config: json.RawMessage(`{"zone": "UTC"}`),
			BadConfigs: []plugintest.BadConfig{
				{Name: "no such zone", Config: json.RawMessage(`{"zone": "Mars/Olympus"}`), Path: "zone"},
				{Name: "port of the wrong type", Config: json.RawMessage(`{"port": "http"}`), Path: "port"},
				{Name: "port out of range", Config: json.RawMessage(`{"port": 0}`), Path: "port"},
			},
		})
	})
	executable := plugintest.Build(t, "badplugin")
	for _, id := range []string{"addon.good", "runtime.good", "cni.good"} {
		t.Run(id, func(t *testing.T) {
			plugintest.Run(t, plugintest.Options{Executable: executable, Args: []string{"good", id}})
		})
	}
}

// TestBadPluginsFail runs the kit in a test process of its own, which must fail at the
// named check.
func TestBadPluginsFail(t *testing.T) {
	if mode := os.Getenv("KIT_MODE"); mode != "" {
		plugintest.Run(t, plugintest.Options{
			Executable: os.Getenv("KIT_EXECUTABLE"), Args: []string{mode},
			ReadyTimeout: 3 * time.Second, StopTimeout: time.Second,
		})
		return
	}
	executable := plugintest.Build(t, "badplugin")
	for _, c := range []struct{ mode, fails, says string }{
		{"exit-at-once", "it_starts", "gone before it shook hands"},
		{"hang-at-start", "it_starts", "did not shake hands in time"},
		{"rubbish-on-stdout", "it_starts", "where the handshake belongs"},
		{"endless-on-stdout", "it_starts", "before it shook hands"},
		{"socket-elsewhere", "it_starts", "is not in its own directory"},
		{"rubbish-on-stdout", "it_writes_nothing_but_the_handshake", "want one line"},
		{"other-protocol-version", "it_starts", "speaks protocol version 99 and this k3m speaks 1; update k3m"},
		{"other-protocol-version", "it_claims_no_protocol_version", "handshake"},
		{"net-rpc", "it_starts", "net/rpc"},
		{"other-info", "it_says_its_info_without_privileges", "CAP_SYS_ADMIN"},
		{"malformed-info", "info_is_valid", "don't print"},
		{"huge-info", "info_is_valid", "too large"},
		{"fail-in-run", "it_becomes_ready", "the disk of the test is full"},
		{"return-early", "it_becomes_ready", "nobody asked it to"},
		{"panic-in-run", "it_becomes_ready", "gone"},
		{"never-ready", "it_becomes_ready", "not ready within"},
		{"ignore-stop", "it_becomes_ready", "did not end within"},
		{"false-report", "it_becomes_ready", "reports RuntimeReady"},
		{"false-endpoint", "it_becomes_ready", "serves default/kubernetes, which Info.Services does not name"},
		{"false-endpoint", "it_becomes_ready", "192.0.2.99, which is neither a pod gateway nor"},
		{"false-metrics", "it_becomes_ready", "line 2: \"this is {no metric\" is no sample"},
	} {
		t.Run(c.mode+" fails "+c.fails, func(t *testing.T) {
			t.Parallel()
			kit := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBadPluginsFail$/^as_an_executable$/^"+c.fails, "-test.v", "-test.timeout=2m")
			kit.Env = append(os.Environ(), "KIT_MODE="+c.mode, "KIT_EXECUTABLE="+executable)
			kit.WaitDelay = time.Minute
			output, err := kit.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				t.Fatalf("the kit passes it: %v\n%s", err, output)
			}
			if !strings.Contains(string(output), c.says) || !failed(string(output), c.fails) {
				t.Errorf("want a failure of %q that says %q:\n%s", c.fails, c.says, output)
			}
		})
	}
}

// failed tells whether a check whose name begins so is among the failed ones.
func failed(output, check string) bool {
	for line := range strings.Lines(output) {
		if _, name, ok := strings.Cut(line, "--- FAIL: "); ok && strings.HasPrefix(filepath.Base(name), check) {
			return true
		}
	}
	return false
}
