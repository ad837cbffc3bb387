package client

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/proto/pluginv1"
	"google.golang.org/protobuf/proto"
)

func TestReportFromWire(t *testing.T) {
	runtime := func(endpoint string) *pluginv1.Report {
		return &pluginv1.Report{Report: &pluginv1.Report_RuntimeReady{RuntimeReady: &pluginv1.RuntimeReady{Endpoint: endpoint}}}
	}
	network := func(gateways ...string) *pluginv1.Report {
		return &pluginv1.Report{Report: &pluginv1.Report_NetworkReady{NetworkReady: &pluginv1.NetworkReady{Gateways: gateways}}}
	}
	degraded := func(reason string) *pluginv1.Report {
		return &pluginv1.Report{Report: &pluginv1.Report_Degraded{Degraded: &pluginv1.Degraded{Reason: reason}}}
	}
	for _, c := range []struct {
		name  string
		wire  *pluginv1.Report
		want  Report
		fault string
	}{
		{"ready", &pluginv1.Report{Report: &pluginv1.Report_Ready{}}, Ready{}, ""},
		{"a report of a later minor version", &pluginv1.Report{}, nil, ""},
		{"degraded", degraded("disk full"), Degraded{"disk full"}, ""},
		{"degraded for no reason", degraded(" \n"), Degraded{"no reason given"}, ""},
		{"degraded with an escape sequence", degraded("\x1b[2J"), Degraded{"\uFFFD[2J"}, ""},
		{"a runtime", runtime("unix:///run/k3m/containerd.sock"), RuntimeReady{"unix:///run/k3m/containerd.sock"}, ""},
		{"a runtime over TCP", runtime("tcp://10.0.0.1:2375"), nil, "want unix://"},
		{"a runtime at a relative path", runtime("unix://containerd.sock"), nil, "want unix://"},
		{"a runtime at a path with ..", runtime("unix:///run/../etc/shadow"), nil, "without . or .. in it"},
		{"a runtime at a path that no socket can have", runtime("unix:///" + strings.Repeat("a", 107)), nil, "longer than the 107 bytes"},
		{"a runtime at a path that doesn't print", runtime("unix:///run/\x07"), nil, "don't print"},
		{"no gateway", network(), nil, "0 gateways"},
		{"too many gateways", network(strings.Fields(strings.Repeat("10.0.0.1 ", 17))...), nil, "17 gateways"},
		{"a gateway that is a name", network("localhost"), nil, "no IP address"},
		{"a gateway that is everywhere", network("0.0.0.0"), nil, "no address of a node"},
		{"a gateway that is a group", network("ff02::1"), nil, "no address of a node"},
		{"a gateway with a zone", network("fe80::1%eth0"), nil, "no address of a node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := reportFromWire(c.wire)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("error %v, want %q", err, c.fault)
				}
			} else if err != nil || got != c.want {
				t.Errorf("%#v, %v; want %#v", got, err, c.want)
			}
		})
	}
	t.Run("gateways of both families", func(t *testing.T) {
		got, err := reportFromWire(network("10.42.0.1", "fd00::1"))
		if err != nil || len(got.(NetworkReady).Gateways) != 2 {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestProblemsAreCut(t *testing.T) {
	many := make([]*pluginv1.ConfigProblem, 1000)
	got := problemsFromWire(many)
	if len(got) != maxProblems+1 || got[maxProblems].Message != "and 900 more problems" {
		t.Errorf("%d problems, the last is %v", len(got), got[len(got)-1])
	}
}

// FuzzFromWire: whatever bytes a plugin sends, what a caller gets is bounded, printable
// and can be written down; nothing panics.
func FuzzFromWire(f *testing.F) {
	for _, m := range []proto.Message{
		&pluginv1.Info{
			Kind: "cni", Name: "x", Version: "1", Summary: "s", Scope: "node", Requires: []string{"api"},
			Rules:      []*pluginv1.Rule{{Verbs: []string{"get"}, ApiGroups: []string{""}, Resources: []string{"nodes"}}},
			Privileges: &pluginv1.Privileges{Root: true, Capabilities: []string{"CAP_NET_ADMIN"}}, Limits: &pluginv1.Limits{CpuMilli: 1},
			Images: []string{"a"}, ConfigSchema: []byte(`{"type":"object","properties":{"a":{"type":"integer"}}}`),
			Commands: []*pluginv1.Command{{Name: "c", Summary: "s"}}, Abilities: []string{"command"},
		},
		&pluginv1.Report{Report: &pluginv1.Report_RuntimeReady{RuntimeReady: &pluginv1.RuntimeReady{Endpoint: "unix:///a"}}},
		&pluginv1.Report{Report: &pluginv1.Report_NetworkReady{NetworkReady: &pluginv1.NetworkReady{Gateways: []string{"10.0.0.1"}}}},
		&pluginv1.Report{Report: &pluginv1.Report_Degraded{Degraded: &pluginv1.Degraded{Reason: "r"}}},
		&pluginv1.ValidateConfigResponse{Problems: []*pluginv1.ConfigProblem{{Path: "p", Message: "m"}}},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var info pluginv1.Info
		if proto.Unmarshal(raw, &info) == nil {
			checkInfo(t, infoFromWire(&info))
		}
		var report pluginv1.Report
		if proto.Unmarshal(raw, &report) == nil {
			checkReport(t, &report)
		}
		var problems pluginv1.ValidateConfigResponse
		if proto.Unmarshal(raw, &problems) == nil {
			for _, p := range problemsFromWire(problems.GetProblems()) {
				checkText(t, p.Path, maxReason)
				checkText(t, p.Message, maxReason)
			}
		}
	})
}

func checkInfo(t *testing.T, i sdk.Info) {
	if i.Validate() != nil {
		return
	}
	raw, err := json.Marshal(i)
	if err != nil {
		t.Fatalf("a valid info can't be written down: %v", err)
	}
	var again sdk.Info
	if err := json.Unmarshal(raw, &again); err != nil {
		t.Fatalf("a valid info can't be read back: %v", err)
	}
	if d := i.Differences(again); len(d) > 0 {
		t.Errorf("a valid info is another when it is read back: %v", d)
	}
	checkText(t, i.ID(), 63)
	checkText(t, i.Version, 253)
	checkText(t, i.Summary, 200)
}

func checkReport(t *testing.T, w *pluginv1.Report) {
	r, err := reportFromWire(w)
	if err != nil {
		checkText(t, err.Error(), 2*maxReason)
		return
	}
	switch r := r.(type) {
	case Degraded:
		checkText(t, r.Reason, maxReason)
	case RuntimeReady:
		checkText(t, r.Endpoint, maxSocketPath+len("unix://"))
	case NetworkReady:
		for _, a := range r.Gateways {
			if a == (netip.Addr{}) {
				t.Error("an address that is none")
			}
		}
	}
}

// checkText allows for the mark that something was cut.
func checkText(t *testing.T, s string, most int) {
	if !utf8.ValidString(s) || len(s) > most+len("…") {
		t.Errorf("text of %d bytes, at most %d: %.100q", len(s), most, s)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }) {
		t.Errorf("text that doesn't print: %.100q", s)
	}
}
