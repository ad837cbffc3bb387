package nodeip

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/sdk/plugintest"
)

var badConfigs = []plugintest.BadConfig{
	{Name: "unknown key", Config: json.RawMessage(`{"adresses": "all"}`), Path: "adresses"},
	{Name: "unknown choice", Config: json.RawMessage(`{"addresses": "external"}`), Path: "addresses"},
	{Name: "no boolean", Config: json.RawMessage(`{"defaultClass": "yes"}`), Path: "defaultClass"},
	{Name: "no label", Config: json.RawMessage(`{"defaultPool": "a b"}`), Path: "defaultPool"},
	{Name: "no list", Config: json.RawMessage(`{"reservedPorts": 22}`), Path: "reservedPorts"},
	{Name: "port 0", Config: json.RawMessage(`{"reservedPorts": [80, 0]}`), Path: "reservedPorts[1]"},
	{Name: "port 65536", Config: json.RawMessage(`{"reservedPorts": [65536]}`), Path: "reservedPorts[0]"},
	{Name: "half a port", Config: json.RawMessage(`{"reservedPorts": [80.5]}`), Path: "reservedPorts[0]"},
	{Name: "unknown protocol", Config: json.RawMessage(`{"reservedPorts": ["80/http"]}`), Path: "reservedPorts[0]"},
	{Name: "port that is none", Config: json.RawMessage(`{"reservedPorts": [true]}`), Path: "reservedPorts[0]"},
}

func TestConfig(t *testing.T) {
	cfg, problems := parseConfig(nil)
	if len(problems) > 0 || cfg.Addresses != preferExternal || !cfg.DefaultClass || cfg.DefaultPool != "" || len(cfg.reserved) != 0 {
		t.Errorf("the defaults are %+v, %v", cfg, problems)
	}
	cfg, problems = parseConfig(json.RawMessage(
		`{"addresses": "internal", "defaultClass": false, "defaultPool": "edge", "reservedPorts": [2222, "53/udp", "9/SCTP", 22]}`))
	want := []port{{2222, "TCP"}, {53, "UDP"}, {9, "SCTP"}, {22, "TCP"}}
	if len(problems) > 0 || cfg.Addresses != internalOnly || cfg.DefaultClass || cfg.DefaultPool != "edge" || fmt.Sprint(cfg.reserved) != fmt.Sprint(want) {
		t.Errorf("got %+v, %v", cfg, problems)
	}
	all := reservedPorts(cfg)
	if all[port{2222, "TCP"}] != "reservedPorts" || all[port{22, "TCP"}] != "SSH" {
		t.Errorf("reserved are %v", all)
	}
	if _, mine := fixedPorts[port{2222, "TCP"}]; mine {
		t.Error("the fixed ports were changed")
	}
}

func TestBadConfigs(t *testing.T) {
	for _, bad := range badConfigs {
		_, problems := parseConfig(bad.Config)
		if len(problems) != 1 || problems[0].Path != bad.Path || problems[0].Message == "" {
			t.Errorf("%s: %v", bad.Name, problems)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, bad := range badConfigs {
		f.Add(string(bad.Config))
	}
	f.Fuzz(func(t *testing.T, raw string) {
		cfg, problems := parseConfig(json.RawMessage(raw))
		if len(problems) > 0 {
			return
		}
		for _, p := range cfg.reserved {
			if p.number == 0 || !strings.Contains("TCP UDP SCTP", p.protocol) {
				t.Errorf("%q gives port %v", raw, p)
			}
		}
	})
}
