package main

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

func TestContract(t *testing.T) {
	plugintest.Run(t, plugintest.Options{
		New:        func() sdk.Plugin { return &whoami{} },
		Executable: plugintest.Build(t, "."),
		Config:     json.RawMessage(`{"port": 18099}`),
		BadConfigs: []plugintest.BadConfig{
			{Name: "a port that is none", Config: json.RawMessage(`{"port": 70000}`), Path: "port"},
			{Name: "a port in words", Config: json.RawMessage(`{"port": "http"}`), Path: "port"},
		},
		WhileReady: func(t *testing.T, facts sdk.Facts) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:18099/", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if want := "component addon.whoami on node plugintest of cluster cluster.local\n"; string(body) != want {
				t.Errorf("it answers %q, want %q", body, want)
			}
		},
	})
}
