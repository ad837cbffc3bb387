// Command k3m-metrics-server is the component metrics-server.metrics-server. It is apart
// from k3m-plugins because the API machinery that it is made of would make each of
// the other components' processes larger (see docs/adr/0003).
package main

import (
	metricsserver "github.com/k3m-io/k3m/plugins/metrics-server/metrics-server"
	"github.com/k3m-io/k3m/sdk"
)

func main() { sdk.Serve(metricsserver.New()) }
