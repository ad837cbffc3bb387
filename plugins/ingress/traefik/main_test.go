package traefik

import (
	"os"
	"testing"

	"github.com/k3m-io/k3m/sdk"
)

// TestMain: started with the component's ID as its argument, the executable is the plugin.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == id {
		sdk.Serve(New())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
