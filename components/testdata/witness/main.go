// Command witness is a plugin for the tests of package components: it says of itself what
// its first argument, an sdk.Info as JSON, says, and behaves well.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/k3m-io/k3m/sdk"
)

type witness struct{ info sdk.Info }

func main() {
	var w witness
	if err := json.Unmarshal([]byte(os.Args[1]), &w.info); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	sdk.Serve(&w)
}

func (w *witness) Info() sdk.Info { return w.info }

// Cleanup shows that it was called, and by whom.
func (w *witness) Cleanup(_ context.Context, host *sdk.Host) error {
	if string(host.Config()) == `{"fail":true}` {
		return errors.New("the device is busy")
	}
	return os.WriteFile(host.StateDir()+"/cleaned", fmt.Append(nil, os.Getuid()), 0o600)
}

// Run shows what it was given in its state directory.
func (w *witness) Run(ctx context.Context, host *sdk.Host) error {
	given := map[string]any{
		"config": host.Config(), "facts": host.Facts(), "kubeconfig": host.Kubeconfig(), "environment": os.Environ(),
	}
	data, err := json.Marshal(given)
	if err != nil {
		return err
	}
	if err := os.WriteFile(host.StateDir()+"/given.json", data, 0o644); err != nil {
		return err
	}
	switch w.info.Kind {
	case "runtime":
		host.RuntimeReady("unix://" + host.Facts().Paths.RunDir + "/witness.sock")
	case "cni":
		host.NetworkReady([]netip.Addr{netip.MustParseAddr("10.42.0.1")})
	}
	host.Ready()
	<-ctx.Done()
	host.Logger().Info("stops")
	return nil
}
