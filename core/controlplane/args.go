package controlplane

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/featuregate"
)

// Names of the components that take arguments; kubelet and kube-proxy run in package agent.
const (
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubelet           = "kubelet"
	KubeProxy         = "kube-proxy"
)

// Args are a user's own arguments by component: Args["kube-apiserver"] = {"v=2"}, from
// --kube-apiserver-arg v=2. A leading "--" is ignored.
//
// An argument replaces what k3m would set for the same flag. When a flag is given more than
// once, the last one wins; flags that collect values (feature-gates, runtime-config, …) collect.
type Args map[string][]string

// reserved are flags that k3m decides on, because more than one component depends on them, and
// the flag of k3m to use instead; empty if it has none.
var reserved = map[string]map[string]string{
	APIServer: {
		"secure-port":              "--https-listen-port",
		"bind-address":             "--bind-address",
		"advertise-address":        "--advertise-address",
		"service-cluster-ip-range": "--service-cidr",
		"service-node-port-range":  "--service-node-port-range",
		"etcd-servers":             "",
	},
	ControllerManager: {
		"cluster-cidr":             "--cluster-cidr",
		"service-cluster-ip-range": "--service-cidr",
	},
}

// Validate finds arguments that no component could take: a flag that doesn't exist, a value
// that it doesn't take, a flag that k3m reserves, and flags of the whole process that
// contradict each other. It touches nothing outside of the process, and is for the
// configuration to call. Of kubelet and kube-proxy it looks at shared flags only.
func (a Args) Validate() error {
	gates, err := a.FeatureGates()
	if err != nil {
		return err
	}
	known := utilfeature.DefaultMutableFeatureGate.GetAll()
	for gate := range gates {
		if _, ok := known[featuregate.Feature(gate)]; !ok {
			return fmt.Errorf("use feature-gates=%s: Kubernetes has no feature gate of that name", gate)
		}
	}
	for _, component := range []string{APIServer, ControllerManager, Scheduler} {
		fs, err := newFlagSet(component)
		if err != nil {
			return err
		}
		if err := a.apply(fs, component, nil); err != nil {
			return err
		}
	}
	return nil
}

// newFlagSet returns the flags of a component with options that nobody uses.
func newFlagSet(component string) (*pflag.FlagSet, error) {
	switch component {
	case APIServer:
		_, fs := newAPIServerOptions()
		return fs, nil
	case ControllerManager:
		_, fs, err := newControllerManagerOptions()
		return fs, err
	default:
		_, fs := newSchedulerOptions()
		return fs, nil
	}
}

// argument is one flag and its value.
type argument struct {
	name, value string
	bare        bool // given without "="
}

func parseArgument(component, arg string) (argument, error) {
	name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	name = strings.ReplaceAll(name, "_", "-") // as Kubernetes' own flag sets do
	if name == "" {
		return argument{}, fmt.Errorf("read --%s-arg %q: want flag=value", component, arg)
	}
	return argument{name: name, value: value, bare: !ok}, nil
}

// apply sets defaults, and over them the user's arguments for a component, but for those that
// are the whole process's: see shared.
func (a Args) apply(fs *pflag.FlagSet, component string, defaults []argument) error {
	given := map[string]bool{}
	var user []argument
	for _, arg := range a[component] {
		parsed, err := parseArgument(component, arg)
		if err != nil {
			return err
		}
		if instead, ok := reserved[component][parsed.name]; ok {
			if instead != "" {
				instead = ": use " + instead
			}
			return fmt.Errorf("use --%s-arg %q: k3m decides on %s%s", component, arg, parsed.name, instead)
		}
		given[parsed.name] = true
		user = append(user, parsed)
	}
	for _, d := range defaults {
		if given[d.name] {
			continue
		}
		if err := fs.Set(d.name, d.value); err != nil {
			return fmt.Errorf("set --%s=%s of %s: %w", d.name, d.value, component, err)
		}
	}
	for _, arg := range user {
		flag := fs.Lookup(arg.name)
		if flag == nil {
			return fmt.Errorf("use --%s-arg %s: %s has no flag --%s", component, arg.name, component, arg.name)
		}
		if isShared(arg.name) {
			continue
		}
		if arg.bare {
			if flag.NoOptDefVal == "" {
				return fmt.Errorf("use --%s-arg %s: --%s needs a value: %s=…", component, arg.name, arg.name, arg.name)
			}
			arg.value = flag.NoOptDefVal
		}
		if err := fs.Set(arg.name, arg.value); err != nil {
			return fmt.Errorf("use --%s-arg %s=%s: %w", component, arg.name, arg.value, err)
		}
	}
	return nil
}

// has says whether the user set a flag of a component, or one that starts with prefix when it
// ends in "*".
func (a Args) has(component, name string) bool {
	prefix, wild := strings.CutSuffix(name, "*")
	return slices.ContainsFunc(a[component], func(arg string) bool {
		parsed, err := parseArgument(component, arg)
		return err == nil && (parsed.name == name || wild && strings.HasPrefix(parsed.name, prefix))
	})
}

// sharedFlags are flags whose effect is on the whole process, whichever component's they are.
var sharedFlags = []string{
	"feature-gates", "emulated-version", "min-compatibility-version",
	"v", "vmodule",
}

// logFlags are upstream's flags for what k3m's own log does, by the prefix of their names.
var logFlags = []string{"logging-format", "log-flush-frequency", "log-text-", "log-json-"}

func isLogFlag(name string) bool {
	return slices.ContainsFunc(logFlags, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

func isShared(name string) bool { return slices.Contains(sharedFlags, name) }

// setting is a value and who set it.
type setting struct{ value, component string }

// shared collects the flags of the whole process from the arguments of all components, by
// flag; feature gates by "feature-gates" and the gate: {"feature-gates", "SidecarContainers"}.
// Two components that want different values for one are an error.
func (a Args) shared() (map[[2]string]setting, error) {
	settings := map[[2]string]setting{}
	for _, component := range slices.Sorted(maps.Keys(a)) {
		own := map[[2]string]string{} // within a component the last one wins
		for _, arg := range a[component] {
			parsed, err := parseArgument(component, arg)
			if err != nil {
				return nil, err
			}
			switch {
			case isLogFlag(parsed.name):
				return nil, fmt.Errorf("use --%s-arg %q: the parts share k3m's log: use --log-format, --log and --debug", component, arg)
			case !isShared(parsed.name):
			case parsed.name == "feature-gates":
				gates, err := parseGates(parsed.value)
				if err != nil {
					return nil, fmt.Errorf("use --%s-arg %s: %w", component, arg, err)
				}
				for gate, value := range gates {
					own[[2]string{parsed.name, gate}] = value
				}
			default:
				own[[2]string{parsed.name}] = parsed.value
			}
		}
		for key, value := range own {
			before, ok := settings[key]
			if ok && before.value != value {
				what := "--" + key[0]
				if key[1] != "" {
					what = "feature gate " + key[1]
				}
				return nil, fmt.Errorf("%s is %s in --%s-arg and %s in --%s-arg: they share a process, so give both the same value",
					what, before.value, before.component, value, component)
			}
			settings[key] = setting{value, component}
		}
	}
	return settings, nil
}

// FeatureGates returns the gates that any component's arguments set. They hold for the whole
// process; contradictions are an error.
func (a Args) FeatureGates() (map[string]bool, error) {
	settings, err := a.shared()
	if err != nil {
		return nil, err
	}
	gates := map[string]bool{}
	for key, s := range settings {
		if key[0] == "feature-gates" {
			gates[key[1]] = s.value == "true"
		}
	}
	return gates, nil
}

// parseGates reads "A=true,B=false". A "kube:" before a gate, which newer flags allow, says
// nothing and is dropped.
func parseGates(value string) (map[string]string, error) {
	var parsed map[string]bool
	if err := cliflag.NewMapStringBool(&parsed).Set(strings.ReplaceAll(value, "kube:", "")); err != nil {
		return nil, err
	}
	if len(parsed) == 0 {
		return nil, errors.New("names no feature gate: want feature-gates=Name=true")
	}
	gates := map[string]string{}
	for gate, on := range parsed {
		gates[gate] = fmt.Sprint(on)
	}
	return gates, nil
}
