package main

import (
	"testing"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/sdk"
)

func TestGroupsByScope(t *testing.T) {
	p := &plan{
		cfg: &config.Config{NodeName: "server-1"},
		selection: components.Selection{Entries: []components.Entry{
			{Info: sdk.Info{Kind: "cni", Name: "flannel", Scope: sdk.NodeScope}},
			{Info: sdk.Info{Kind: "dns", Name: "coredns", Scope: sdk.ServerScope}},
		}},
	}
	s := &server{plan: p, live: newLive(p)}
	for _, c := range []struct {
		id, node string
		want     bool
	}{
		{"cni.flannel", "server-1", true},
		{"cni.flannel", "node-1", true},
		{"dns.coredns", "server-1", true},
		{"dns.coredns", "node-1", false},
		{"addon.other", "server-1", false},
	} {
		if _, ok := s.groups(c.id, c.node); ok != c.want {
			t.Errorf("%s on %s: %v", c.id, c.node, ok)
		}
	}
}
