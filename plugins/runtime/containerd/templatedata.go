package containerd

import (
	"path/filepath"

	"github.com/k3m-io/k3m/registries"
	"github.com/k3m-io/k3m/sdk"
)

// templateData are the variables of a template of containerd's configuration. Their names are
// those of k3s, whose templates so work here; what a node of k3m can't have is false or empty.
type templateData struct {
	NodeConfig            templateNode
	PrivateRegistryConfig templateRegistries
	// ExtraRuntimes is empty: k3m looks for no runtimes of the host.
	ExtraRuntimes map[string]templateRuntime
	Program       string

	SystemdCgroup, DisableCgroup, IsRunningInUserNS       bool
	EnableUnprivileged, NoDefaultEndpoint, NonrootDevices bool
}

type templateNode struct {
	AgentConfig    templateAgent
	Containerd     templateContainerd
	DefaultRuntime string

	SELinux, NoFlannel bool
}

type templateAgent struct {
	NodeName, PauseImage, Snapshotter string
	CNIBinDir, CNIConfDir             string
	ImageServiceSocket                string
}

type templateContainerd struct {
	Address, Root, State, Opt      string
	Config, Template, Registry     string
	BlockIOConfig, RDTConfig       string
	SELinux, Debug, NonrootDevices bool
}

type templateRuntime struct{ RuntimeType, BinaryName string }

type templateRegistries struct {
	Mirrors map[string]templateMirror
	Configs map[string]templateHost
}

type templateMirror struct {
	Endpoints []string
	Rewrites  map[string]string
}

// templateHost has no credentials: they have no place in containerd's configuration here.
type templateHost struct {
	TLS registries.TLS
}

// variables are those of one node.
func (s settings) variables(config Config, facts sdk.Facts, r *registries.Registries) templateData {
	dir := filepath.Dir(s.registries)
	data := templateData{
		Program: "k3m", SystemdCgroup: s.systemdCgroup, EnableUnprivileged: true,
		NoDefaultEndpoint: config.DisableDefaultRegistryEndpoint,
		NodeConfig: templateNode{
			AgentConfig: templateAgent{NodeName: facts.NodeName, PauseImage: s.sandbox.name, Snapshotter: s.snapshotter,
				CNIBinDir: s.cniBinDir, CNIConfDir: s.cniConfDir},
			Containerd: templateContainerd{Address: s.socket, Root: s.root, State: s.state, Registry: s.registries,
				Opt: s.root, Config: filepath.Join(dir, configFile), Template: filepath.Join(dir, "config.toml.tmpl")},
		},
		PrivateRegistryConfig: templateRegistries{Mirrors: map[string]templateMirror{}, Configs: map[string]templateHost{}},
	}
	for _, m := range r.Mirrors {
		t := templateMirror{Rewrites: map[string]string{}}
		for _, e := range m.Endpoints {
			t.Endpoints = append(t.Endpoints, e.URL.String())
		}
		for _, w := range m.Rewrites {
			t.Rewrites[w.Pattern.String()] = w.Replacement
		}
		data.PrivateRegistryConfig.Mirrors[m.Registry] = t
	}
	for _, h := range r.Hosts {
		data.PrivateRegistryConfig.Configs[h.Name] = templateHost{TLS: h.TLS}
	}
	return data
}
