package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
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
	os.Exit(m.Run())
}

// beNode serves until SIGTERM; it writes one line to standard output when it is ready.
func beNode(raw string) int {
	var n nodeProcess
	if err := json.Unmarshal([]byte(raw), &n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	os.Unsetenv(nodeVariable)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Info})
	err := serve(ctx, n.Config, n.Facts, logger, func(endpoint string) { fmt.Println(endpoint) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		return 1
	}
	return 0
}
