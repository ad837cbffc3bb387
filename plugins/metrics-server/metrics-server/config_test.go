package metricsserver

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

// badConfigs are used by the contract tests too.
var badConfigs = []plugintest.BadConfig{
	{Name: "a resolution below metrics-server's least", Config: json.RawMessage(`{"resolution": "9s"}`), Path: "resolution"},
	{Name: "a resolution that no autoscaler can use", Config: json.RawMessage(`{"resolution": "6m"}`), Path: "resolution"},
	{Name: "a resolution without a unit", Config: json.RawMessage(`{"resolution": "15"}`), Path: "resolution"},
	{Name: "a resolution that is a number", Config: json.RawMessage(`{"resolution": 15}`), Path: "resolution"},
	{Name: "a port of root's", Config: json.RawMessage(`{"port": 443}`), Path: "port"},
	{Name: "a port above the last", Config: json.RawMessage(`{"port": 65536}`), Path: "port"},
	{Name: "a null", Config: json.RawMessage(`{"port": null}`), Path: "port"},
	{Name: "a key with the wrong case", Config: json.RawMessage(`{"Port": 10251}`), Path: "Port"},
}

func TestParseConfig(t *testing.T) {
	for name, test := range map[string]struct {
		raw  string
		want config
	}{
		"nothing":    {``, config{"15s", 10251}},
		"null":       {`null`, config{"15s", 10251}},
		"empty":      {` {} `, config{"15s", 10251}},
		"everything": {`{"resolution": "1m30s", "port": 4443}`, config{"1m30s", 4443}},
	} {
		t.Run(name, func(t *testing.T) {
			if have, problems := parseConfig(json.RawMessage(test.raw)); have != test.want || problems != nil {
				t.Errorf("have %+v, %v, want %+v", have, problems, test.want)
			}
		})
	}
	if have := (config{Resolution: "1m30s"}).resolution(); have != 90*time.Second {
		t.Errorf("have %s", have)
	}
	t.Run("all problems at once, in order", func(t *testing.T) {
		_, have := parseConfig(json.RawMessage(`{"resolution": "soon", "prot": 1, "port": 80}`))
		want := []sdk.ConfigProblem{
			{Path: "port", Message: "80 is outside 1024 to 65535"},
			{Path: "prot", Message: `unknown key; did you mean "port"?`},
			{Path: "resolution", Message: `"soon" is not a duration; write 15s or 1m`},
		}
		if !reflect.DeepEqual(have, want) {
			t.Errorf("have %+v\nwant %+v", have, want)
		}
	})
}
