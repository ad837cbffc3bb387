package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/cmd/internal/bundle"
	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/agent"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/sdk"
)

// plan is what a server is going to run, checked, before anything on the host is touched.
type plan struct {
	cfg       *config.Config
	bundle    string
	catalog   *components.Catalog
	selection components.Selection
	// configs are the configuration blocks by component ID.
	configs map[string]json.RawMessage
	args    controlplane.Args
}

func newPlan(cfg *config.Config) (*plan, error) {
	dir, err := bundle.Dir()
	if err != nil {
		return nil, err
	}
	catalog, err := components.Discover(dir, cfg.DataDir)
	if err != nil {
		return nil, err
	}
	selection, err := components.Select(catalog, components.Choices{
		Enable: choices(cfg.Enable), Disable: choices(cfg.Disable),
	})
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(selection.Entries, func(e components.Entry) bool { return e.Info.Kind == "dns" }) {
		if err := cfg.CheckClusterDNS(); err != nil {
			return nil, err
		}
	}
	p := &plan{cfg: cfg, bundle: dir, catalog: catalog, selection: selection}
	if p.configs, err = componentConfigs(cfg, catalog, selection); err != nil {
		return nil, err
	}
	if err := checkRegistries(cfg, selection, p.configs); err != nil {
		return nil, err
	}
	if p.args, err = kubernetesArgs(cfg); err != nil {
		return nil, err
	}
	return p, nil
}

// kubernetesArgs are the arguments of the Kubernetes parts, checked.
func kubernetesArgs(cfg *config.Config) (controlplane.Args, error) {
	given := map[string][]config.Value{
		controlplane.APIServer:         cfg.APIServerArgs,
		controlplane.ControllerManager: cfg.ControllerManagerArgs,
		controlplane.Scheduler:         cfg.SchedulerArgs,
		controlplane.Kubelet:           cfg.KubeletArgs,
		controlplane.KubeProxy:         cfg.KubeProxyArgs,
	}
	args := controlplane.Args{}
	for part, values := range given {
		args[part] = config.Texts(values)
	}
	err := checkArgs(args)
	if err == nil {
		return args, nil
	}
	// The parts don't know where an argument was written: look for one that is wrong by
	// itself.
	for _, part := range slices.Sorted(maps.Keys(given)) {
		for _, v := range given[part] {
			if err := checkArgs(controlplane.Args{part: {v.Text}}); err != nil {
				return nil, &config.Error{Source: v.Source, Message: err.Error()}
			}
		}
	}
	return nil, &config.Error{Source: "arguments of Kubernetes parts", Message: err.Error()}
}

func checkArgs(args controlplane.Args) error {
	if err := args.Validate(); err != nil {
		return err
	}
	return agent.CheckArgs(args[controlplane.Kubelet], args[controlplane.KubeProxy])
}

func (p *plan) launcher() string { return filepath.Join(p.bundle, "bin", "k3m-launch") }

func choices(values []config.Value) []components.Choice {
	all := make([]components.Choice, len(values))
	for i, v := range values {
		all[i] = components.Choice{Source: v.Source, Text: v.Text}
	}
	return all
}

// componentConfigs are the blocks of the configuration file, with the values of options that
// are short forms added, checked.
func componentConfigs(cfg *config.Config, catalog *components.Catalog, selection components.Selection) (map[string]json.RawMessage, error) {
	var known []string
	for _, e := range catalog.Entries() {
		known = append(known, e.ID())
	}
	configs := map[string]json.RawMessage{}
	for id, block := range cfg.Components {
		if !slices.Contains(known, id) {
			return nil, &config.Error{Source: block.Source, Message: fmt.Sprintf("unknown component %q%s; known: %s",
				id, config.DidYouMean(id, known), strings.Join(known, ", "))}
		}
		configs[id] = block.Raw
	}
	short := shortForms(cfg)
	for _, s := range short {
		if err := s.add(cfg, selection, configs); err != nil {
			return nil, err
		}
	}
	return configs, checkConfigs(cfg, catalog, configs, short)
}

// checkConfigs compares the blocks with the schemas that the components have on record,
// without starting any.
func checkConfigs(cfg *config.Config, catalog *components.Catalog, configs map[string]json.RawMessage, short []shortForm) error {
	for _, id := range slices.Sorted(maps.Keys(configs)) {
		entry, _ := catalog.Find(id)
		problems := sdk.CheckConfig(entry.Info.ConfigSchema, configs[id])
		if len(problems) == 0 {
			continue
		}
		source := ""
		if i := slices.IndexFunc(short, func(s shortForm) bool { return s.id == id }); i >= 0 {
			source = short[i].option.Source
		}
		if block, ok := cfg.Components[id]; ok {
			source = block.At(problems[0].Path)
		}
		where := id
		if problems[0].Path != "" {
			where += "." + problems[0].Path
		}
		return &config.Error{Source: source, Message: where + ": " + problems[0].Message}
	}
	return nil
}

// flannelBackend is the one that cni.flannel will use.
func (p *plan) flannelBackend() string {
	var block struct{ Backend string }
	if raw, ok := p.configs[flannelID]; !ok || json.Unmarshal(raw, &block) != nil || block.Backend == "" {
		return config.FlannelBackends[0]
	}
	return block.Backend
}

// cgroupParent is the cgroup below which a node keeps its own: several nodes can live on
// one host as long as their data directories differ.
func cgroupParent(dataDir string) string {
	if dataDir == config.DefaultDataDir {
		return "/k3m"
	}
	sum := sha256.Sum256([]byte(dataDir))
	return "/k3m" + hex.EncodeToString(sum[:4])
}

// kubeletCgroupRoot is where the kubelet keeps the cgroups of pods.
func kubeletCgroupRoot(dataDir string) string {
	if dataDir == config.DefaultDataDir {
		return "/"
	}
	return cgroupParent(dataDir)
}

// facts are what components are told of the node, as far as it is known without the
// cluster.
func (p *plan) facts() sdk.Facts {
	agentDir := p.cfg.AgentDir()
	return sdk.Facts{
		NodeName: p.cfg.NodeName, NodeIPs: p.cfg.NodeIPs,
		LocalStoragePath: p.cfg.LocalStoragePath,
		CgroupParent:     cgroupParent(p.cfg.DataDir), PauseImage: cmp.Or(p.cfg.PauseImage, config.DefaultPauseImage),
		Paths: sdk.Paths{
			BinDir:           filepath.Join(p.bundle, "bin"),
			CarriedCNIDir:    filepath.Join(p.bundle, "cni"),
			CarriedImagesDir: filepath.Join(p.bundle, "images"),
			CNIBinDir:        filepath.Join(agentDir, "cni", "bin"),
			CNIConfDir:       filepath.Join(agentDir, "etc", "cni", "net.d"),
			ImagesDir:        filepath.Join(agentDir, "images"),
			RunDir:           p.cfg.RunDir,
			AgentDir:         agentDir,
		},
	}
}
