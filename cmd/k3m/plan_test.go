package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/sdk"
)

func TestComponentConfigs(t *testing.T) {
	flannel := components.Entry{Info: sdk.Info{Kind: "cni", Name: "flannel", ConfigSchema: json.RawMessage(
		`{"type":"object","additionalProperties":false,"properties":{"backend":{"type":"string"},"mtu":{"type":"integer"}}}`)}}
	catalog := components.NewCatalog(t.TempDir(), flannel)
	all := components.Selection{Entries: []components.Entry{flannel}}
	block := func(text string) map[string]config.Component {
		return map[string]config.Component{"cni.flannel": {Raw: json.RawMessage(text), Source: "config.yaml:2:3"}}
	}
	backend := config.Value{Text: "host-gw", Source: "--flannel-backend"}
	for name, tc := range map[string]struct {
		cfg       config.Config
		selection components.Selection
		want      string // the block of cni.flannel
		err       []string
	}{
		"nothing":            {selection: all},
		"a block":            {cfg: config.Config{Components: block(`{"mtu":1400}`)}, selection: all, want: `{"mtu":1400}`},
		"the flag":           {cfg: config.Config{FlannelBackend: backend}, selection: all, want: `{"backend":"host-gw"}`},
		"flag and block":     {cfg: config.Config{FlannelBackend: backend, Components: block(`{"mtu":1400}`)}, selection: all, want: `{"backend":"host-gw","mtu":1400}`},
		"they contradict":    {cfg: config.Config{FlannelBackend: backend, Components: block(`{"backend":"vxlan"}`)}, selection: all, err: []string{"--flannel-backend", "vxlan", "config.yaml:2:3"}},
		"flannel not chosen": {cfg: config.Config{FlannelBackend: backend}, err: []string{"--flannel-backend", "not among"}},
		"unknown key":        {cfg: config.Config{Components: block(`{"mtuu":1400}`)}, selection: all, err: []string{"config.yaml:2:3", "mtuu", "mtu"}},
		"wrong type":         {cfg: config.Config{Components: block(`{"mtu":"big"}`)}, selection: all, err: []string{"config.yaml:2:3", "cni.flannel.mtu"}},
		"unknown component": {cfg: config.Config{Components: map[string]config.Component{"cni.flanel": {Raw: json.RawMessage(`{}`), Source: "config.yaml:2:3"}}},
			selection: all, err: []string{"config.yaml:2:3", `did you mean "cni.flannel"?`}},
	} {
		t.Run(name, func(t *testing.T) {
			configs, err := componentConfigs(&tc.cfg, catalog, tc.selection)
			if (err != nil) != (tc.err != nil) {
				t.Fatalf("error is %v", err)
			}
			for _, want := range tc.err {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if err == nil && string(configs["cni.flannel"]) != tc.want {
				t.Errorf("block is %s, want %s", configs["cni.flannel"], tc.want)
			}
		})
	}
}

// TestRegistriesFile: a mistake in registries.yaml is told where it stands, before anything
// starts.
func TestRegistriesFile(t *testing.T) {
	containerd := components.Entry{Info: sdk.Info{Kind: "runtime", Name: "containerd", ConfigSchema: json.RawMessage(
		`{"type":"object","additionalProperties":false,"properties":{"registries":{"type":"string"}}}`)}}
	all := components.Selection{Entries: []components.Entry{containerd}}
	catalog := components.NewCatalog(t.TempDir(), containerd)
	file := filepath.Join(t.TempDir(), "registries.yaml")
	if err := os.WriteFile(file, []byte("mirrors:\n  docker.io: {endpoints: [x]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flag := func(path string) config.Config {
		return config.Config{PrivateRegistry: config.Value{Text: path, Source: "--private-registry"}}
	}
	for name, tc := range map[string]struct {
		cfg       config.Config
		selection components.Selection
		err       string // none: it is good
	}{
		"no file at the default place": {selection: all},
		"a mistake":                    {cfg: flag(file), selection: all, err: file + ":2:15: unknown key \"endpoints\""},
		"a file that is not there":     {cfg: flag(file + "x"), selection: all, err: "--private-registry: "},
		"in the component's block": {cfg: config.Config{Components: map[string]config.Component{containerdID: {
			Raw: json.RawMessage(`{"registries":"/nowhere"}`), Source: "config.yaml:2:3", Places: map[string]string{"registries": "config.yaml:3:5"}}}},
			selection: all, err: "config.yaml:3:5: "},
		"another runtime": {cfg: flag(file), err: "--private-registry: sets the registries of runtime.containerd, which is not among the chosen components"},
	} {
		t.Run(name, func(t *testing.T) {
			configs, err := componentConfigs(&tc.cfg, catalog, tc.selection)
			if err == nil {
				err = checkRegistries(&tc.cfg, tc.selection, configs)
			}
			if (err != nil) != (tc.err != "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
				t.Errorf("error is %v, want %q", err, tc.err)
			}
		})
	}
}

func TestCgroupsOfNodesOnOneHost(t *testing.T) {
	if got := cgroupParent(config.DefaultDataDir); got != "/k3m" {
		t.Errorf("the default node's cgroup is %q", got)
	}
	if got := kubeletCgroupRoot(config.DefaultDataDir); got != "/" {
		t.Errorf("the default node's pods are in %q", got)
	}
	a, b := cgroupParent("/srv/a"), cgroupParent("/srv/b")
	if a == b || !strings.HasPrefix(a, "/k3m") || kubeletCgroupRoot("/srv/a") != a {
		t.Errorf("cgroups are %q and %q", a, b)
	}
}

func TestKubernetesArgs(t *testing.T) {
	at := func(line, text string) config.Value {
		return config.Value{Source: "config.yaml:" + line, Text: text}
	}
	for name, tc := range map[string]struct {
		cfg  config.Config
		want []string // of the error; none: it is good
	}{
		"good":          {cfg: config.Config{KubeletArgs: []config.Value{at("1", "max-pods=42")}, APIServerArgs: []config.Value{at("2", "v=1")}}},
		"unknown flag":  {cfg: config.Config{KubeletArgs: []config.Value{at("1", "max-pods=42"), at("2", "max-podz=42")}}, want: []string{"config.yaml:2", "max-podz"}},
		"of the server": {cfg: config.Config{APIServerArgs: []config.Value{at("3", "nonsense=1")}}, want: []string{"config.yaml:3", "nonsense"}},
		"contradiction": {cfg: config.Config{APIServerArgs: []config.Value{at("1", "feature-gates=AllAlpha=true")},
			KubeletArgs: []config.Value{at("2", "feature-gates=AllAlpha=false")}}, want: []string{"AllAlpha", "--kube-apiserver-arg", "--kubelet-arg"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kubernetesArgs(&tc.cfg)
			if (err != nil) != (tc.want != nil) {
				t.Fatalf("error is %v", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}
