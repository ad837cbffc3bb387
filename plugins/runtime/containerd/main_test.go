package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/k3m-io/k3m/sdk"
)

// nodeVariable makes this test executable a node: its value is the node as JSON.
// containerd can be started once in a process, and must be killed by tests.
const nodeVariable = "K3M_TEST_NODE"

type nodeProcess struct {
	Config Config
	Facts  sdk.Facts
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(nodeVariable); raw != "" {
		os.Exit(beNode(raw))
	}
	code := m.Run()
	if pluginDir != "" {
		os.RemoveAll(pluginDir)
	}
	os.Exit(code)
}

// pluginDir holds the plugin's executable, built once for all tests, with the flags that
// GOFLAGS gives to the tests too.
var pluginDir string

var buildPluginOnce = sync.OnceValues(func() (string, error) {
	var err error
	if pluginDir, err = os.MkdirTemp("", "k3m-plugin-"); err != nil {
		return "", err
	}
	executable := filepath.Join(pluginDir, "plugin")
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", executable, "./testdata/plugin").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return executable, nil
})

func buildPlugin(t *testing.T) string {
	t.Helper()
	executable, err := buildPluginOnce()
	if err != nil {
		t.Fatal("build the plugin:", err)
	}
	return executable
}

// reporter writes the endpoint to standard output, and the rest into the log.
type reporter struct{ log hclog.Logger }

func (r reporter) RuntimeReady(endpoint string) { fmt.Println(endpoint) }
func (r reporter) Ready()                       { r.log.Info("said that it is ready") }
func (r reporter) Degraded(reason string)       { r.log.Warn("said that it is degraded", "reason", reason) }

// beNode serves until SIGTERM; it writes one line to standard output when it is ready.
func beNode(raw string) int {
	var n nodeProcess
	if err := json.Unmarshal([]byte(raw), &n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	_ = os.Unsetenv(nodeVariable) // it is of no use to shims
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Info})
	err := serve(ctx, n.Config, n.Facts, logger, reporter{logger})
	if err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		return 1
	}
	return 0
}
