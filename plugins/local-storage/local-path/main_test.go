package localpath

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/test/clusterapi"
)

// TestMain makes the test executable the plugin too, as k3m's multi-call one is, when it is
// started with the component's ID.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "local-storage.local-path" {
		sdk.Serve(New())
		os.Exit(0)
	}
	if os.Getenv(confinedRole) != "" {
		tellConfined()
		os.Exit(0)
	}
	code := m.Run()
	if shared.api != nil {
		if err := shared.api.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// shared is the one control plane of this process: API, controllers and scheduler. There
// is no kubelet: pods are scheduled and never run.
var shared struct {
	once sync.Once
	api  *clusterapi.API
	err  error
}

func controlPlane(t *testing.T) *clusterapi.API {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a control plane")
	}
	shared.once.Do(func() { shared.api, shared.err = clusterapi.Start(context.Background()) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.api
}
