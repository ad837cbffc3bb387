// Command whoami is a k3m component: on every node it answers, over HTTP, who it is.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/k3m-io/k3m/sdk"
)

func main() { sdk.Serve(whoami{}) }

type whoami struct{}

func (whoami) Info() sdk.Info {
	return sdk.Info{
		Kind: "addon", Name: "whoami", Version: "1.0.0", Summary: "says which component, node and cluster it is",
		Scope: sdk.NodeScope, Requires: []sdk.Requirement{"cni"}, // for the pod gateway
		ConfigSchema: json.RawMessage(`{
			"type": "object", "additionalProperties": false,
			"properties": {"port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 8099}}}`),
	}
}

func (w whoami) Run(ctx context.Context, host *sdk.Host) error {
	config := struct {
		Port int `json:"port"`
	}{Port: 8099}
	if err := host.DecodeConfig(&config); err != nil {
		return err
	}
	facts := host.Facts()
	var socket net.ListenConfig
	listener, err := socket.Listen(ctx, "tcp", net.JoinHostPort(facts.PodGateways[0].String(), strconv.Itoa(config.Port)))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "component %s on node %s of cluster %s\n", w.Info().ID(), facts.NodeName, facts.ClusterDomain)
	})}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	host.Ready()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
