// Command whoami is a k3m component: on every node it answers, over HTTP, who it is.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"

	"github.com/k3m-io/k3m/sdk"
)

func main() { sdk.Serve(&whoami{}) }

type whoami struct{ answers atomic.Int64 }

func (*whoami) Info() sdk.Info {
	return sdk.Info{
		Kind: "addon", Name: "whoami", Version: "1.0.0", Summary: "says which component, node and cluster it is",
		Scope: sdk.NodeScope, Requires: []sdk.Requirement{"cni"}, // for the pod gateway
		Services: []string{"default/whoami"},
		Objects: []json.RawMessage{json.RawMessage(`{
			"apiVersion": "v1", "kind": "Service", "metadata": {"name": "whoami", "namespace": "default"},
			"spec": {"ports": [{"name": "http", "port": 80}], "trafficDistribution": "PreferSameNode"}}`)},
		ConfigSchema: json.RawMessage(`{
			"type": "object", "additionalProperties": false,
			"properties": {"port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 8099}}}`),
	}
}

func (w *whoami) Run(ctx context.Context, host *sdk.Host) error {
	config := struct {
		Port uint16 `json:"port"`
	}{Port: 8099}
	if err := host.DecodeConfig(&config); err != nil {
		return err
	}
	facts := host.Facts()
	gateway := facts.PodGateways[0]
	var socket net.ListenConfig
	listener, err := socket.Listen(ctx, "tcp", netip.AddrPortFrom(gateway, config.Port).String())
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.answers.Add(1)
		fmt.Fprintf(rw, "component %s on node %s of cluster %s\n", w.Info().ID(), facts.NodeName, facts.ClusterDomain)
	})}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	host.Serve(sdk.Endpoint{
		Service: "default/whoami", Addresses: []netip.Addr{gateway},
		Ports: []sdk.EndpointPort{{Name: "http", Protocol: sdk.TCP, Port: config.Port}},
	})
	host.Ready()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// WriteMetrics makes it a sdk.MetricsWriter: the node serves this on its /metrics.
func (w *whoami) WriteMetrics(_ context.Context, out io.Writer) error {
	_, err := fmt.Fprintf(out, "# HELP whoami_answers_total Requests answered.\n# TYPE whoami_answers_total counter\nwhoami_answers_total %d\n", w.answers.Load())
	return err
}
