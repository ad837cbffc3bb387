// Command plugin is runtime.containerd in an executable of its own, for the tests.
package main

import (
	"github.com/k3m-io/k3m/plugins/runtime/containerd"
	"github.com/k3m-io/k3m/sdk"
)

func main() { sdk.Serve(containerd.New()) }
