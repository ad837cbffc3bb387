package components

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/sdk"
)

// testCatalog has a default for most kinds, two kinds of which there are several, a name
// that two kinds share, and a component that is the only one of its kind.
func testCatalog() *Catalog {
	entry := func(id string, isDefault bool, requires ...sdk.Requirement) Entry {
		kind, name, _ := strings.Cut(id, ".")
		return Entry{Default: isDefault, Info: sdk.Info{Kind: kind, Name: name, Scope: sdk.NodeScope, Requires: requires}}
	}
	return NewCatalog("/bundle",
		entry("runtime.containerd", true), entry("runtime.docker", false),
		entry("cni.flannel", true, "api", "node"),
		entry("network-policy.nftables", true, "cni"),
		entry("dns.coredns", true, "cni", "api"),
		entry("ingress.traefik", true), entry("ingress.nginx", false),
		entry("metrics-server.metrics-server", true),
		entry("addon.twin", false), entry("servicelb.twin", false),
	)
}

var defaults = []string{"runtime.containerd", "cni.flannel", "network-policy.nftables", "dns.coredns", "ingress.traefik", "metrics-server.metrics-server"}

func flags(name string, texts ...string) []Choice {
	var out []Choice
	for _, text := range texts {
		out = append(out, Choice{Source: name, Text: text})
	}
	return out
}

func TestSelect(t *testing.T) {
	tests := map[string]struct {
		enable, disable []string
		want            []string // with - and + against the defaults
		none            []string
	}{
		"nothing chosen":                {},
		"another of an at-most-one":     {enable: []string{"runtime=docker"}, want: []string{"-runtime.containerd", "+runtime.docker"}},
		"another of a many":             {enable: []string{"ingress=nginx"}, want: []string{"-ingress.traefik", "+ingress.nginx"}},
		"both of a many":                {enable: []string{"ingress=nginx", "ingress=traefik"}, want: []string{"+ingress.nginx"}},
		"comma separated":               {enable: []string{"ingress=nginx, traefik"}, want: []string{"+ingress.nginx"}},
		"the same twice":                {enable: []string{"nginx", "ingress.nginx"}, want: []string{"-ingress.traefik", "+ingress.nginx"}},
		"by dotted ID":                  {enable: []string{"runtime.docker"}, want: []string{"-runtime.containerd", "+runtime.docker"}},
		"by name":                       {enable: []string{"docker"}, want: []string{"-runtime.containerd", "+runtime.docker"}},
		"by kind, its default":          {enable: []string{"ingress"}},
		"by kind, the only one":         {enable: []string{"servicelb"}, want: []string{"+servicelb.twin"}},
		"a name that is a kind too":     {enable: []string{"metrics-server"}},
		"the default, said":             {enable: []string{"cni=flannel"}},
		"disable by kind":               {disable: []string{"ingress"}, want: []string{"-ingress.traefik"}},
		"disable by name":               {disable: []string{"traefik"}, want: []string{"-ingress.traefik"}},
		"disable by pair":               {disable: []string{"ingress=traefik"}, want: []string{"-ingress.traefik"}},
		"disable what is not on":        {disable: []string{"nginx"}},
		"disable several":               {disable: []string{"ingress,dns", "metrics-server"}, want: []string{"-ingress.traefik", "-dns.coredns", "-metrics-server.metrics-server"}},
		"disable one, enable its other": {enable: []string{"runtime=docker"}, disable: []string{"containerd"}, want: []string{"-runtime.containerd", "+runtime.docker"}},
		"no network of k3m's":           {enable: []string{"cni=none"}, want: []string{"-cni.flannel"}, none: []string{"cni"}},
		"none of an optional kind":      {enable: []string{"ingress=none"}, want: []string{"-ingress.traefik"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := Select(testCatalog(), Choices{Enable: flags("--enable", tt.enable...), Disable: flags("--disable", tt.disable...)})
			if err != nil {
				t.Fatal(err)
			}
			want := slices.Clone(defaults)
			for _, change := range tt.want {
				if id, off := strings.CutPrefix(change, "-"); off {
					want = slices.DeleteFunc(want, func(w string) bool { return w == id })
				} else {
					want = append(want, change[1:])
				}
			}
			var got []string
			for _, e := range s.Entries {
				got = append(got, e.ID())
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("selected %v, want %v", got, want)
			}
			if !slices.Equal(s.None, tt.none) {
				t.Errorf("none %v, want %v", s.None, tt.none)
			}
		})
	}
}

// Of a kind that allows many, the first that was enabled is the first.
func TestSelectKeepsTheOrderOfAKind(t *testing.T) {
	for want, enable := range map[string][]string{
		"traefik nginx": {"ingress=traefik", "ingress=nginx"},
		"nginx traefik": {"ingress=nginx,ingress=traefik", "nginx"},
	} {
		s, err := Select(testCatalog(), Choices{Enable: flags("--enable", enable...)})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range s.Entries {
			if e.Info.Kind == "ingress" {
				got = append(got, e.Info.Name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v: %v, want %s", enable, got, want)
		}
	}
}

func TestSelectErrors(t *testing.T) {
	tests := map[string]struct {
		enable, disable []string
		want            string
	}{
		"unknown kind": {enable: []string{"ingres=nginx"},
			want: `--enable: unknown kind "ingres" in "ingres=nginx" (did you mean "ingress"?); kinds are runtime, cni, network-policy, dns, ingress, servicelb, local-storage, metrics-server, addon`},
		"unknown component of a kind": {enable: []string{"ingress=ngnix"},
			want: `--enable: unknown component "ngnix" in "ingress=ngnix" (did you mean "nginx"?); of kind "ingress" there is nginx, traefik`},
		"unknown component of an empty kind": {enable: []string{"local-storage=x"},
			want: "--enable: unknown component \"x\" in \"local-storage=x\"; this k3m has none of kind \"local-storage\"; `k3m component install` adds one"},
		"unknown name": {disable: []string{"treafik"},
			want: `--disable: unknown component or kind "treafik" (did you mean "traefik"?); components are containerd, docker, flannel, nftables, coredns, nginx, traefik, twin, metrics-server, twin; kinds are runtime, cni, network-policy, dns, ingress, servicelb, local-storage, metrics-server, addon`},
		"two runtimes": {enable: []string{"runtime=docker", "containerd"},
			want: `--enable: exactly one of kind "runtime" may run on a node, and 2 are enabled: --enable runtime=docker, --enable containerd; leave all but one out`},
		"enable and disable of the same": {enable: []string{"ingress=nginx"}, disable: []string{"nginx"},
			want: `--disable: disables ingress.nginx, which --enable ingress=nginx enables; leave one of the two out`},
		"enable and disable of the only one": {enable: []string{"cni=flannel"}, disable: []string{"flannel"},
			want: `--disable: disables cni.flannel, which --enable cni=flannel enables; leave one of the two out`},
		"enable one, disable its kind": {enable: []string{"ingress=nginx"}, disable: []string{"ingress"},
			want: `--disable: disables "ingress", of which --enable ingress=nginx enables one; leave one of the two out`},
		"disable the runtime": {disable: []string{"runtime"},
			want: `--disable: "runtime" can't be disabled: a node needs a runtime; to have another one, --enable runtime=docker`},
		"disable the network": {disable: []string{"flannel"},
			want: "--disable: \"flannel\" can't be disabled: a node needs a cni; `k3m component install` adds another cni; --enable cni=none leaves the pod network to you"},
		"no runtime": {enable: []string{"runtime=none"},
			want: `--enable: a node can't be without a runtime; choose one of containerd, docker`},
		"none and one": {enable: []string{"cni=none", "flannel"},
			want: `--enable: "cni=none" contradicts --enable flannel`},
		"disable none": {disable: []string{"cni=none"},
			want: `--disable: "cni=none" can't be disabled, it is what is left without a component; to have no cni, write --disable cni`},
		"ambiguous name": {enable: []string{"twin"},
			want: `--enable: "twin" is ambiguous: write one of servicelb.twin, addon.twin`},
		"empty": {enable: []string{"nginx,"},
			want: `--enable: an empty name in "nginx,"; write kind=name, a name or a kind`},
		"kind without a component": {enable: []string{"local-storage"},
			want: "--enable: this distribution has no component of kind \"local-storage\"; `k3m component install` adds one"},
		"several mistakes": {enable: []string{"dsn=coredns"}, disable: []string{"runtime"},
			want: "--enable: unknown kind \"dsn\" in \"dsn=coredns\" (did you mean \"dns\"?); kinds are runtime, cni, network-policy, dns, ingress, servicelb, local-storage, metrics-server, addon\n" +
				`--disable: "runtime" can't be disabled: a node needs a runtime; to have another one, --enable runtime=docker`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Select(testCatalog(), Choices{Enable: flags("--enable", tt.enable...), Disable: flags("--disable", tt.disable...)})
			if err == nil {
				t.Fatal("no error")
			}
			if err.Error() != tt.want {
				t.Errorf("error\n  %s\nwant\n  %s", err, tt.want)
			}
			var typed *SelectionError
			if !errors.As(err, &typed) || typed.ExitCode() != 2 {
				t.Errorf("error %#v has no exit code 2", err)
			}
		})
	}
}

func TestSelectChecksRequirements(t *testing.T) {
	entry := func(kind, name string, requires ...sdk.Requirement) Entry {
		return Entry{Default: true, Info: sdk.Info{Kind: kind, Name: name, Scope: sdk.NodeScope, Requires: requires}}
	}
	tests := map[string]struct {
		catalog *Catalog
		choices Choices
		want    string
	}{
		"a kind that was disabled": {testCatalogWith(entry("addon", "a", "dns")), Choices{Disable: flags("/etc/k3m/config.yaml:3", "dns")},
			"/etc/k3m/config.yaml:3: addon.a requires a component of kind \"dns\", and none is selected: --enable dns, or --disable addon.a"},
		"a kind that is left to the user": {testCatalog(), Choices{Enable: flags("--enable", "cni=none")}, ""},
		"a circle": {NewCatalog("/", entry("runtime", "r"), entry("cni", "c"), entry("dns", "d", "ingress"), entry("ingress", "i", "dns")), Choices{},
			"these components wait for each other: dns -> ingress -> dns; disable one of them"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Select(tt.catalog, tt.choices)
			if got := errorText(err); got != tt.want {
				t.Errorf("error\n  %s\nwant\n  %s", got, tt.want)
			}
		})
	}
}

func testCatalogWith(e Entry) *Catalog {
	c := testCatalog()
	c.entries = append(c.entries, e)
	return c
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestOfScope(t *testing.T) {
	s := Selection{Entries: []Entry{
		{Info: sdk.Info{Kind: "dns", Name: "n", Scope: sdk.NodeScope}}, {Info: sdk.Info{Kind: "addon", Name: "s", Scope: sdk.ServerScope}},
	}}
	if got := s.OfScope(true); len(got.Entries) != 2 {
		t.Errorf("a server runs %v", got.Infos())
	}
	if got := s.OfScope(false); len(got.Entries) != 1 || got.Entries[0].ID() != "dns.n" {
		t.Errorf("an agent runs %v", got.Infos())
	}
}

func FuzzSelect(f *testing.F) {
	for _, text := range []string{"ingress=nginx", "cni=none", "a.b.c", ",,", "=", ".", "runtime", "ingress=traefik,nginx", "twin"} {
		f.Add(text, text)
	}
	f.Fuzz(func(t *testing.T, enable, disable string) {
		s, err := Select(testCatalog(), Choices{Enable: flags("--enable", enable), Disable: flags("--disable", disable)})
		if err != nil {
			return
		}
		count := map[string]int{}
		for _, e := range s.Entries {
			count[e.Info.Kind]++
		}
		for _, k := range kinds {
			if k.Cardinality != Many && count[k.Name] > 1 {
				t.Errorf("%d of kind %s", count[k.Name], k.Name)
			}
			if k.Cardinality == ExactlyOne && count[k.Name] == 0 && !slices.Contains(s.None, k.Name) {
				t.Errorf("no %s", k.Name)
			}
		}
	})
}
