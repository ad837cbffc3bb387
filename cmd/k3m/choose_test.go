package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/sdk"
)

// choosable is a catalog of the kinds' sorts: exactly one, at most one, many.
func choosable(t *testing.T) *components.Catalog {
	entry := func(id string, isDefault bool) components.Entry {
		kind, name, _ := strings.Cut(id, ".")
		return components.Entry{Info: sdk.Info{Kind: kind, Name: name, Scope: sdk.NodeScope}, Default: isDefault}
	}
	return components.NewCatalog(t.TempDir(),
		entry("runtime.containerd", true), entry("cni.flannel", true),
		entry("dns.coredns", true), entry("dns.other", false),
		entry("ingress.traefik", true), entry("ingress.nginx", false),
		entry("servicelb.nodeip", true), entry("addon.logs", false), entry("addon.more", false))
}

// TestWish compares what is asked for with what runs, which flags may have decided.
func TestWish(t *testing.T) {
	running := []string{"runtime.containerd", "ingress.nginx"}
	for word, want := range map[string]bool{
		"+ingress": true, "+nginx": true, "+ingress=traefik": false, "+dns": false, "+cni=none": true, "+ingress=none": false,
		"-ingress": false, "-ingress=traefik": true, "-ingress=nginx": false, "-dns": true,
	} {
		target, err := components.ResolveChoice(choosable(t), "test", word[1:])
		if err != nil {
			t.Fatal(err)
		}
		if got := (wish{target, word[0] == '+'}).fulfilled(running); got != want {
			t.Errorf("%s is fulfilled: %v", word, got)
		}
	}
}

func TestChooser(t *testing.T) {
	for name, tc := range map[string]struct {
		enable, disable string // before
		on, off         string
		want            string // enable | disable after; ! and words of an error
		runs            string // of the kinds that are not always there
	}{
		"a default off":              {off: "servicelb", want: "|servicelb", runs: "coredns traefik"},
		"by name":                    {off: "nodeip", want: "|servicelb=nodeip", runs: "coredns traefik"},
		"on again":                   {disable: "servicelb", on: "servicelb", want: "|", runs: "coredns traefik nodeip"},
		"on again by name":           {disable: "servicelb", on: "nodeip", want: "|", runs: "coredns traefik nodeip"},
		"another of its kind":        {on: "dns=other", want: "dns=other|", runs: "other traefik nodeip"},
		"and back":                   {enable: "dns=other", on: "coredns", want: "dns=coredns|", runs: "coredns traefik nodeip"},
		"one of many beside another": {enable: "ingress=traefik", on: "nginx", want: "ingress=traefik,ingress=nginx|", runs: "coredns traefik nginx nodeip"},
		"one of many for a default":  {on: "nginx", want: "ingress=nginx|", runs: "coredns nginx nodeip"},
		"a default and another":      {on: "traefik nginx", want: "ingress=traefik,ingress=nginx|", runs: "coredns traefik nginx nodeip"},
		"a kind and another":         {enable: "ingress", on: "traefik nginx", want: "ingress,ingress=traefik,ingress=nginx|", runs: "coredns traefik nginx nodeip"},
		"one of two off":             {enable: "ingress=traefik,ingress=nginx", off: "nginx", want: "ingress=traefik|", runs: "coredns traefik nodeip"},
		"no default in its place":    {enable: "ingress=nginx", off: "nginx", want: "|ingress=traefik", runs: "coredns nodeip"},
		"all of a kind off":          {enable: "ingress=traefik,nginx", off: "ingress", want: "|ingress", runs: "coredns nodeip"},
		"an addon on":                {on: "logs", want: "addon=logs|", runs: "coredns traefik nodeip logs"},
		"an addon off":               {enable: "logs,more", off: "addon.logs", want: "more|", runs: "coredns traefik nodeip more"},
		"twice":                      {enable: "dns=other", on: "dns.other", want: "dns=other|", runs: "other traefik nodeip"},
		"off twice":                  {disable: "dns", off: "coredns", want: "|dns", runs: "traefik nodeip"},
		"no runtime":                 {off: "runtime", want: "! a node needs a runtime"},
		"unknown":                    {on: "cordns", want: `! did you mean "coredns"?`},
		"no network of its own":      {on: "cni=none", want: "cni=none|", runs: "coredns traefik nodeip"},
	} {
		t.Run(name, func(t *testing.T) {
			list := func(text string) []string {
				if text == "" {
					return nil
				}
				return []string{text}
			}
			c := newChooser(choosable(t), list(tc.enable), list(tc.disable))
			var err error
			for _, word := range strings.Fields(tc.on) {
				err = errors.Join(err, c.turnOn(word))
			}
			if tc.on == "" {
				err = c.turnOff(tc.off)
			}
			if says, refused := strings.CutPrefix(tc.want, "! "); refused {
				if err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("error %v does not say %q", err, says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(c.enable, ",") + "|" + strings.Join(c.disable, ",")
			if got != tc.want {
				t.Errorf("lists are %s, want %s", got, tc.want)
			}
			selection, err := c.selected()
			if err != nil {
				t.Fatal(err)
			}
			var runs []string
			for _, info := range selection.Infos() {
				if info.Kind != "runtime" && info.Kind != "cni" {
					runs = append(runs, info.Name)
				}
			}
			want := strings.Fields(tc.runs)
			slices.Sort(runs)
			slices.Sort(want)
			if !slices.Equal(runs, want) {
				t.Errorf("selected are %v, want %v", runs, want)
			}
		})
	}
}
