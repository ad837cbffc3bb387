package main

import (
	"strings"
	"testing"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/sdk"
)

func TestWithDashboard(t *testing.T) {
	entry := func(kind, name string, commands ...sdk.Command) components.Entry {
		return components.Entry{Info: sdk.Info{Kind: kind, Name: name, Commands: commands}}
	}
	all := []components.Entry{
		entry("dns", "coredns"), entry("ingress", "nginx"),
		entry("ingress", "traefik", sdk.Command{Name: dashboardCommandName}),
	}
	for word, want := range map[string]string{
		"ingress.traefik": "ingress.traefik", "traefik": "ingress.traefik", "ingress": "ingress.traefik",
		"dns":     "component dns.coredns has no dashboard; these have: ingress.traefik",
		"nginx":   "component ingress.nginx has no dashboard; these have: ingress.traefik",
		"traefic": "did you mean",
	} {
		t.Run(word, func(t *testing.T) {
			got, err := withDashboard(all, word)
			if err == nil && got.ID() != want || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %v; want %s", got.ID(), err, want)
			}
		})
	}
}
