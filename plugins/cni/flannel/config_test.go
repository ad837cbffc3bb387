package flannel

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

// badConfigs are used by the contract tests too.
var badConfigs = []plugintest.BadConfig{
	{Name: "a backend that there is not", Config: json.RawMessage(`{"backend": "udp"}`), Path: "backend"},
	{Name: "a backend that is no word", Config: json.RawMessage(`{"backend": 3}`), Path: "backend"},
	{Name: "a null", Config: json.RawMessage(`{"mtu": null}`), Path: "mtu"},
	{Name: "an interface name with a slash", Config: json.RawMessage(`{"interface": "eth/0"}`), Path: "interface"},
	{Name: "an interface name that is too long", Config: json.RawMessage(`{"interface": "sixteencharacters"}`), Path: "interface"},
	{Name: "an empty interface name", Config: json.RawMessage(`{"interface": ""}`), Path: "interface"},
	{Name: "an MTU too small for IP", Config: json.RawMessage(`{"mtu": 500}`), Path: "mtu"},
	{Name: "a broken number", Config: json.RawMessage(`{"mtu": 1400.5}`), Path: "mtu"},
	{Name: "a port above the last", Config: json.RawMessage(`{"port": 65536}`), Path: "port"},
	{Name: "a port for host-gw", Config: json.RawMessage(`{"backend": "host-gw", "port": 8472}`), Path: "port"},
	{Name: "a vni for wireguard", Config: json.RawMessage(`{"backend": "wireguard", "vni": 1}`), Path: "vni"},
	{Name: "a vni of 25 bits", Config: json.RawMessage(`{"vni": 16777216}`), Path: "vni"},
	{Name: "a key with the wrong case", Config: json.RawMessage(`{"MTU": 1400}`), Path: "MTU"},
}

func TestParseConfig(t *testing.T) {
	for name, test := range map[string]struct {
		raw  string
		want config
	}{
		"nothing":    {``, config{Backend: "vxlan", Port: 8472, VNI: 1}},
		"null":       {`null`, config{Backend: "vxlan", Port: 8472, VNI: 1}},
		"empty":      {` {} `, config{Backend: "vxlan", Port: 8472, VNI: 1}},
		"host-gw":    {`{"backend": "host-gw"}`, config{Backend: "host-gw"}},
		"wireguard":  {`{"backend": "wireguard"}`, config{Backend: "wireguard", Port: 51820}},
		"everything": {`{"backend":"vxlan","interface":"eth1","mtu":1400,"port":4789,"vni":42}`, config{"vxlan", "eth1", 1400, 4789, 42}},
	} {
		t.Run(name, func(t *testing.T) {
			if have, problems := parseConfig(json.RawMessage(test.raw)); have != test.want || problems != nil {
				t.Errorf("have %+v, %v, want %+v", have, problems, test.want)
			}
		})
	}
	t.Run("a list is refused", func(t *testing.T) {
		if _, problems := parseConfig(json.RawMessage(`["vxlan"]`)); len(problems) != 1 || problems[0].Path != "" {
			t.Errorf("have %v", problems)
		}
	})
	t.Run("all problems at once, in order", func(t *testing.T) {
		_, have := parseConfig(json.RawMessage(`{"vni": 0, "backend": "vxlna", "bakcend": 1, "mtu": "big", "zzz": {}}`))
		want := []sdk.ConfigProblem{
			{Path: "backend", Message: `"vxlna" is not a backend; did you mean "vxlan"?`},
			{Path: "bakcend", Message: `unknown key; did you mean "backend"?`},
			{Path: "mtu", Message: `"big" is not a whole number`},
			{Path: "vni", Message: `0 is outside 1 to 16777215`},
			{Path: "zzz", Message: `unknown key; allowed are backend, interface, mtu, port, vni`},
		}
		if !reflect.DeepEqual(have, want) {
			t.Errorf("have %q\nwant %q", have, want)
		}
	})
}

// The schema, which k3m checks by itself, and parseConfig agree on what they both can see.
func TestSchemaAgrees(t *testing.T) {
	schema := json.RawMessage(configSchema)
	for _, good := range []string{`{}`, `{"backend":"vxlan","interface":"eth1","mtu":1400,"port":4789,"vni":42}`} {
		if problems := sdk.CheckConfig(schema, json.RawMessage(good)); len(problems) > 0 {
			t.Errorf("%s: %v", good, problems)
		}
	}
	for _, bad := range []string{`{"backend": 3}`, `{"unknown": 1}`, `[]`} {
		if problems := sdk.CheckConfig(schema, json.RawMessage(bad)); len(problems) == 0 {
			t.Errorf("%s: the schema takes it", bad)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, bad := range badConfigs {
		f.Add([]byte(bad.Config))
	}
	f.Add([]byte(`{"backend":"vxlan","interface":"eth1","mtu":1400,"port":4789,"vni":42}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		cfg, problems := parseConfig(raw)
		if len(problems) > 0 {
			return
		}
		// What is accepted is used as it is.
		again, err := json.Marshal(struct {
			Backend string `json:"backend"`
			MTU     int    `json:"mtu,omitempty"`
		}{cfg.Backend, cfg.MTU})
		must(t, err)
		if _, problems := parseConfig(again); len(problems) > 0 {
			t.Errorf("%s was accepted as %+v, which is not: %v", raw, cfg, problems)
		}
	})
}
