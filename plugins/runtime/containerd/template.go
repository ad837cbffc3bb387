package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/hashicorp/go-hclog"
	"github.com/pelletier/go-toml/v2"
)

// templates are the names under which an operator's template of containerd's configuration is
// looked for, beside that configuration; the first that is there is taken. They are those of
// k3s.
var templates = []string{"config-v3.toml.tmpl", "config.toml.tmpl"}

const (
	// configFile is what the template gave: what is in force.
	configFile = "config.toml"
	// maxTemplate is the most bytes that a template, and what it gives, may have.
	maxTemplate = 1 << 20
)

// render writes containerd's configuration, by way of the operator's template if there is
// one, and reads it as containerd does. Mistakes are told with their file and line.
func (s settings) render(ctx context.Context, variables templateData, logger hclog.Logger) (*srvconfig.Config, error) {
	base, err := toml.Marshal(s.base())
	if err != nil {
		return nil, fmt.Errorf("write containerd's configuration: %w", err)
	}
	dir := filepath.Dir(s.registries)
	name, text, err := findTemplate(dir)
	if err != nil {
		return nil, err
	}
	rendered, from := base, "k3m's own settings"
	if name != "" {
		if rendered, err = execute(name, text, base, variables); err != nil {
			return nil, err
		}
		from = name
		logger.Info("containerd's configuration is that of a template", "file", name)
	}
	file := filepath.Join(dir, configFile)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of containerd's configuration: %w", err)
	}
	header := fmt.Sprintf("# Written by k3m from %s at each start; what is changed here is lost.\n", from)
	if err := replaceFile(file, append([]byte(header), rendered...)); err != nil { // mode 0600
		return nil, fmt.Errorf("write containerd's configuration: %w", err)
	}
	if err := checkTOML(file); err != nil {
		return nil, fmt.Errorf("%w (it comes from %s)", err, from)
	}
	config := &srvconfig.Config{Version: version.ConfigVersion}
	if err := srvconfig.LoadConfigWithPlugins(ctx, file, registrations, config); err != nil {
		return nil, fmt.Errorf("read containerd's configuration %s: %w", file, err)
	}
	if err := s.check(config, from, logger); err != nil {
		return nil, err
	}
	return config, nil
}

func registrations() iter.Seq[plugin.Registration] {
	return slices.Values(registry.Graph(func(*plugin.Registration) bool { return false }))
}

func findTemplate(dir string) (name string, text []byte, err error) {
	for _, t := range templates {
		name = filepath.Join(dir, t)
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			text, err = io.ReadAll(io.LimitReader(f, maxTemplate+1))
			f.Close()
		}
		if err == nil && len(text) > maxTemplate {
			err = fmt.Errorf("%s is larger than %d bytes", name, maxTemplate)
		}
		if err != nil {
			return "", nil, fmt.Errorf("read the template of containerd's configuration: %w", err)
		}
		return name, text, nil
	}
	return "", nil, nil
}

// execute is the text that a template gives, in which `{{ template "base" . }}` is what k3m
// would have written. Errors begin with "file:line".
func execute(name string, text, base []byte, variables templateData) ([]byte, error) {
	t := template.New(name).Option("missingkey=error")
	// A function, since what k3m writes is no template.
	t.Funcs(template.FuncMap{"k3mBase": func() string { return string(base) }})
	if _, err := t.New("base").Parse("{{ k3mBase }}"); err != nil {
		return nil, err
	}
	if _, err := t.Parse(string(text)); err != nil {
		return nil, templateError(err)
	}
	var out bytes.Buffer
	if err := t.Execute(limited{&out}, variables); err != nil {
		return nil, templateError(err)
	}
	return out.Bytes(), nil
}

// templateError drops the package's prefix: what follows is "file:line".
func templateError(err error) error {
	return errors.New(strings.ReplaceAll(strings.TrimPrefix(err.Error(), "template: "), "\n", "; "))
}

// limited is a buffer that a template can't fill without end.
type limited struct{ *bytes.Buffer }

func (l limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxTemplate {
		return 0, fmt.Errorf("it gives more than %d bytes", maxTemplate)
	}
	return l.Buffer.Write(p)
}

// checkTOML refuses what is no TOML and keys at the top that containerd doesn't know.
func checkTOML(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	err = toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&srvconfig.Config{})
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(unknown.Errors) > 0 {
		first := unknown.Errors[0]
		row, column := first.Position()
		return fmt.Errorf("%s:%d:%d: containerd knows no key %q", file, row, column, strings.Join(first.Key(), "."))
	}
	if mistake, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, column := mistake.Position()
		return fmt.Errorf("%s:%d:%d: %s", file, row, column, strings.TrimPrefix(mistake.Error(), "toml: "))
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}

// check refuses what this node can't be run with, and adds what it can't be without.
func (s settings) check(config *srvconfig.Config, from string, logger hclog.Logger) error {
	address := ""
	if grpc, ok := config.Plugins[grpcURI].(map[string]any); ok {
		address, _ = grpc["address"].(string)
	}
	for _, c := range []struct{ what, is, want string }{
		{"root", config.Root, s.root}, {"state", config.State, s.state}, {"the address of " + grpcURI, address, s.socket},
	} {
		if c.is != c.want {
			return fmt.Errorf("%s: %s is %q, and k3m needs %q; begin the template with {{ template \"base\" . }}", from, c.what, c.is, c.want)
		}
	}
	known := map[string]bool{}
	for r := range registrations() {
		known[r.URI()] = true
	}
	for _, uri := range slices.Sorted(maps.Keys(config.Plugins)) {
		if !known[uri] {
			logger.Warn("this containerd has no such plugin; its settings have no effect", "plugin", uri, "from", from)
		}
	}
	// The name that the settings of CRI had up to version 2 is now another plugin's.
	if old, ok := config.Plugins["io.containerd.grpc.v1.cri"].(map[string]any); ok {
		for _, key := range []string{"containerd", "registry", "cni", "sandbox_image", "enable_selinux"} {
			if _, ok := old[key]; ok {
				return fmt.Errorf("%s: %s below io.containerd.grpc.v1.cri is of version 2 of the configuration; "+
					"write it below io.containerd.cri.v1.runtime (images and registries: io.containerd.cri.v1.images)", from, key)
			}
		}
	}
	s.completeRuntimes(config)
	if !slices.Contains(config.RequiredPlugins, bridgeURI) {
		config.RequiredPlugins = append(config.RequiredPlugins, bridgeURI)
	}
	return nil
}

// completeRuntimes gives the template's runtimes of runc's shim what it must know to be one of
// this node's: in its own cgroup a shim outlives this process, and below the node's directory
// its containers are found when the node is removed.
func (s settings) completeRuntimes(config *srvconfig.Config) {
	cri, _ := config.Plugins["io.containerd.cri.v1.runtime"].(map[string]any)
	runtimes, _ := cri["containerd"].(map[string]any)
	runtimes, _ = runtimes["runtimes"].(map[string]any)
	for _, r := range runtimes {
		runtime, ok := r.(map[string]any)
		if !ok || runtime["runtime_type"] != runcType {
			continue
		}
		options, _ := runtime["options"].(map[string]any)
		if options == nil {
			options = map[string]any{}
			runtime["options"] = options
		}
		for key, value := range s.runcOptions() {
			if _, ok := options[key]; !ok {
				options[key] = value
			}
		}
		if _, ok := runtime["runtime_path"]; !ok {
			runtime["runtime_path"] = s.shim()
		}
	}
}
