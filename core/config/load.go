package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Flags adds the options of `k3m server` to a flag set. Load reads them from there.
func Flags(fs *pflag.FlagSet) {
	for _, o := range options {
		switch {
		case o.list:
			fs.StringArray(o.name, nil, o.usage)
		default:
			fs.String(o.name, "", o.usage)
			if o.boolean {
				f := fs.Lookup(o.name)
				f.NoOptDefVal, f.Value = "true", toggle{f.Value}
			}
		}
		if o.secret {
			fs.String(o.name+"-fd", "", "descriptor that holds the "+o.name)
			_ = fs.MarkHidden(o.name + "-fd")
		}
	}
}

// toggle is the text of an option that is true or false: help shows it as pflag's own.
type toggle struct{ pflag.Value }

// Type is that of pflag.Bool.
func (toggle) Type() string { return "bool" }

// Environment is how Load sees the world; the zero value has no variables.
type Environment struct {
	// Lookup finds a variable, as os.LookupEnv.
	Lookup func(name string) (string, bool)
	// Hostname gives the default of node-name, as os.Hostname.
	Hostname func() (string, error)
}

// Load merges flags, environment and files, and checks the result. A *Error tells of a
// mistake of the user's.
func Load(fs *pflag.FlagSet, env Environment) (*Config, error) {
	l, err := NewLoader(fs, env)
	if err != nil {
		return nil, err
	}
	return l.Load(nil)
}

// Loader loads again and again: flags and environment are read once, the files each time.
type Loader struct {
	env    Environment
	strong map[string][]Value // from flags and environment
}

// NewLoader reads flags and environment.
func NewLoader(fs *pflag.FlagSet, env Environment) (*Loader, error) {
	strong, err := fromFlags(fs)
	if err != nil {
		return nil, err
	}
	return &Loader{env, strong}, fromEnvironment(strong, env)
}

// Stronger is the flag or the variable that an option was given with, which no file can
// change; "" when there is none.
func (l *Loader) Stronger(option string) string {
	if values := l.strong[option]; len(values) > 0 {
		return values[0].Source
	}
	return ""
}

// Load reads the files, merges and checks. Of a file in overlay, by path, the text there is
// taken and not the one on the disk; nil stands for a file that does not exist.
func (l *Loader) Load(overlay map[string][]byte) (*Config, error) {
	c := &Config{
		DataDir: DefaultDataDir, RunDir: DefaultRunDir, File: DefaultFile, WriteKubeconfig: DefaultKubeconfig,
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix(DefaultClusterCIDR)}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix(DefaultServiceCIDR)},
		ClusterDomain: DefaultClusterDomain, NodePorts: PortRange{30000, 32767}, HTTPSPort: APIPort, KubeconfigGID: -1, LogFormat: "text",
		PauseImage: DefaultPauseImage, DatastoreSync: "full", SnapshotSchedule: DefaultSnapshotSchedule, SnapshotRetention: DefaultSnapshotRetention,
	}
	found := maps.Clone(l.strong)
	_, named := found["config"]
	if named {
		if err := lookupOption("config").set(c, found["config"]); err != nil {
			return nil, err
		}
	}
	file, err := readFiles(c.File, named, overlay)
	if err != nil {
		return nil, err
	}
	for name, values := range file.values {
		if _, ok := found[name]; !ok && !shadowed(found, name) {
			found[name] = values
		}
	}
	if c.Components, err = file.blocks(); err != nil {
		return nil, err
	}
	c.settings = found

	if token, ok := found["token"]; ok {
		if tokenFile, ok := found["token-file"]; ok {
			return nil, &Error{token[0].Source, "given together with " + tokenFile[0].Source + "; give one of them"}
		}
	}
	for _, o := range options {
		if values, ok := found[o.name]; ok && o.name != "config" {
			if err := o.set(c, values); err != nil {
				return nil, err
			}
		}
	}
	return c, finish(c, l.env)
}

// shadowed says that the token of a weaker source gives way to a token-file of a
// stronger one, and the reverse.
func shadowed(found map[string][]Value, name string) bool {
	_, ok := found[twins[name]]
	return ok
}

// twins are two ways to say the same.
var twins = map[string]string{"token": "token-file", "token-file": "token"}

func finish(c *Config, env Environment) error {
	if c.NodeName == "" {
		name, err := env.Hostname()
		if err != nil {
			return fmt.Errorf("find the hostname: %w", err)
		}
		c.NodeName = strings.ToLower(name)
		if problems := validation.IsDNS1123Subdomain(c.NodeName); len(problems) > 0 {
			return &Error{"hostname", fmt.Sprintf("%q can't be a node's name; give another with --node-name", name)}
		}
	}
	if c.LocalStoragePath == "" {
		c.LocalStoragePath = filepath.Join(c.DataDir, "storage")
	}
	if c.SnapshotDir == "" {
		c.SnapshotDir = SnapshotDir(c.DataDir)
	}
	if c.KubeconfigMode == 0 {
		c.KubeconfigMode = 0o600
		if c.KubeconfigGID >= 0 {
			c.KubeconfigMode = 0o640
		}
	}
	return finishNetwork(c)
}

func fromFlags(fs *pflag.FlagSet) (map[string][]Value, error) {
	found := map[string][]Value{}
	var failed error
	fs.Visit(func(f *pflag.Flag) {
		source := "--" + f.Name
		if name, ok := strings.CutSuffix(f.Name, "-fd"); ok && lookupOption(name) != nil {
			text, err := readDescriptor(f.Value.String())
			if err != nil {
				failed = errors.Join(failed, &Error{source, err.Error()})
			}
			found[name] = []Value{{text, "--" + name}}
			return
		}
		if lookupOption(f.Name) == nil {
			return
		}
		if many, ok := f.Value.(pflag.SliceValue); ok {
			for _, text := range many.GetSlice() {
				found[f.Name] = append(found[f.Name], Value{text, source})
			}
			return
		}
		found[f.Name] = []Value{{f.Value.String(), source}}
	})
	return found, failed
}

func fromEnvironment(found map[string][]Value, env Environment) error {
	if env.Lookup == nil {
		return nil
	}
	for _, o := range options {
		if _, ok := found[o.name]; ok || shadowed(found, o.name) {
			continue
		}
		source := Variable(o.name)
		text, ok := env.Lookup(source)
		if o.secret && !ok {
			descriptor, given := env.Lookup(source + "_FD")
			if given {
				var err error
				if text, err = readDescriptor(descriptor); err != nil {
					return &Error{source, err.Error()}
				}
				ok = true
			}
		}
		if !ok || text == "" {
			continue
		}
		if !o.list {
			found[o.name] = []Value{{text, source}}
			continue
		}
		for _, item := range strings.Split(text, ",") {
			found[o.name] = append(found[o.name], Value{strings.TrimSpace(item), source})
		}
	}
	return nil
}

func lookupOption(name string) *option {
	for i := range options {
		if options[i].name == name {
			return &options[i]
		}
	}
	return nil
}

// readDescriptor reads a secret from an inherited descriptor and closes it.
func readDescriptor(number string) (string, error) {
	fd, err := strconv.ParseUint(number, 10, 16)
	if err != nil || fd < 3 {
		return "", fmt.Errorf("%q is not an inherited descriptor's number", number)
	}
	f := os.NewFile(uintptr(fd), "secret")
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 8192))
	if err != nil {
		return "", fmt.Errorf("read descriptor %s: %w", number, err)
	}
	return strings.TrimSpace(string(text)), nil
}
