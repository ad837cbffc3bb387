package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/robfig/cron/v3"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/k3m-io/k3m/sdk/nearest"
)

// option is one setting that has a flag, a variable and a key of the same name.
type option struct {
	name string
	// list says that it may be repeated, and is a list in the file.
	list bool
	// boolean says that the flag alone means true.
	boolean bool
	// secret options are never taken from a command line that others can read; see
	// package secret, which moves them to a descriptor before the server starts.
	secret bool
	usage  string
	// set checks the values of the strongest source and stores them.
	set func(c *Config, values []Value) error
}

func one(store func(c *Config, v Value) error) func(*Config, []Value) error {
	return func(c *Config, values []Value) error { return store(c, values[len(values)-1]) }
}

func path(field func(c *Config) *string) func(*Config, []Value) error {
	return one(func(c *Config, v Value) error {
		if v.Text == "" {
			return &Error{v.Source, "the path is empty; name a file or directory"}
		}
		abs, err := filepath.Abs(v.Text)
		if err != nil {
			return &Error{v.Source, err.Error()}
		}
		*field(c) = abs
		return nil
	})
}

func list(field func(c *Config) *[]Value) func(*Config, []Value) error {
	return func(c *Config, values []Value) error {
		*field(c) = values
		return nil
	}
}

// upstream options carry name=value pairs for a Kubernetes part's own flags.
func upstream(field func(c *Config) *[]Value) func(*Config, []Value) error {
	return func(c *Config, values []Value) error {
		for _, v := range values {
			if name, _, ok := strings.Cut(v.Text, "="); !ok || name == "" || strings.HasPrefix(name, "-") {
				return &Error{v.Source, fmt.Sprintf("%q is not of the form name=value (without leading dashes)", v.Text)}
			}
		}
		*field(c) = values
		return nil
	}
}

// boolean options are true or false; spell them like that, so that a typing mistake is seen.
func boolean(field func(c *Config) *bool) func(*Config, []Value) error {
	return one(func(c *Config, v Value) error {
		if v.Text != "true" && v.Text != "false" {
			return &Error{v.Source, fmt.Sprintf("%q is neither true nor false", v.Text)}
		}
		*field(c) = v.Text == "true"
		return nil
	})
}

// number options are whole numbers from lowest to highest.
func number(field func(c *Config) *int, lowest, highest int) func(*Config, []Value) error {
	return one(func(c *Config, v Value) error {
		n, err := strconv.Atoi(v.Text)
		if err != nil || n < lowest || n > highest {
			return &Error{v.Source, fmt.Sprintf("%q is not a whole number from %d to %d", v.Text, lowest, highest)}
		}
		*field(c) = n
		return nil
	})
}

// choice options are one of the allowed words.
func choice(field func(c *Config) *string, allowed ...string) func(*Config, []Value) error {
	return one(func(c *Config, v Value) error {
		if !slices.Contains(allowed, v.Text) {
			return &Error{v.Source, fmt.Sprintf("unknown value %q%s; allowed: %s", v.Text, DidYouMean(v.Text, allowed), strings.Join(allowed, ", "))}
		}
		*field(c) = v.Text
		return nil
	})
}

// FlannelBackends are the values of --flannel-backend.
var FlannelBackends = []string{"vxlan", "host-gw", "wireguard"}

// options are all settings of `k3m server`, in the order of its help text.
var options = slices.Concat(mainOptions, imageOptions, nodeOptions, clusterOptions, apiOptions)

// mainOptions are those of which a user first thinks, and the rest.
var mainOptions = []option{
	{name: "config", usage: "configuration file (default " + DefaultFile + ")",
		set: path(func(c *Config) *string { return &c.File })},
	{name: "data-dir", usage: "where the node keeps its state (default " + DefaultDataDir + ")",
		set: path(func(c *Config) *string { return &c.DataDir })},
	{name: "run-dir", usage: "where the node keeps its sockets (default " + DefaultRunDir + ")",
		set: path(func(c *Config) *string { return &c.RunDir })},
	{name: "node-name", usage: "name of the Kubernetes node (default: the hostname)",
		set: one(func(c *Config, v Value) error {
			if problems := validation.IsDNS1123Subdomain(v.Text); len(problems) > 0 {
				return &Error{v.Source, fmt.Sprintf("%q can't be a node's name: %s", v.Text, problems[0])}
			}
			c.NodeName = v.Text
			return nil
		})},
	{name: "node-ip", list: true, usage: "address of the node; of a dual-stack one, one of each family, comma-separated or repeated (default: those of the default routes)",
		set: addresses("node-ip", func(c *Config) *[]netip.Addr { return &c.NodeIPs })},
	{name: "write-kubeconfig", usage: "where the administrator's kubeconfig is written (default " + DefaultKubeconfig + ")",
		set: path(func(c *Config) *string { return &c.WriteKubeconfig })},
	{name: "token", secret: true, usage: "secret with which nodes join; other users of the machine can't read it once k3m runs (default: made at the first start)",
		set: one(func(c *Config, v Value) error { return setToken(c, v) })},
	{name: "token-file", usage: "file that holds the token",
		set: one(func(c *Config, v Value) error {
			text, err := readSmall(v.Text, 4096)
			if err != nil {
				return &Error{v.Source, fmt.Sprintf("read the token: %v", err)}
			}
			return setToken(c, Value{strings.TrimSpace(string(text)), v.Source})
		})},
	{name: "enable", list: true, usage: "component to run: KIND=NAME, KIND.NAME, KIND or NAME; comma-separated or repeated (cni=none: bring your own network)",
		set: list(func(c *Config) *[]Value { return &c.Enable })},
	{name: "disable", list: true, usage: "component not to run: KIND or NAME; comma-separated or repeated",
		set: list(func(c *Config) *[]Value { return &c.Disable })},
	{name: "flannel-backend", usage: "backend of cni.flannel: " + strings.Join(FlannelBackends, ", ") + " (default vxlan)",
		set: one(func(c *Config, v Value) error {
			for _, b := range FlannelBackends {
				if v.Text == b {
					c.FlannelBackend = v
					return nil
				}
			}
			return &Error{v.Source, fmt.Sprintf("unknown backend %q%s; allowed: %s", v.Text, DidYouMean(v.Text, FlannelBackends), strings.Join(FlannelBackends, ", "))}
		})},
	{name: "cluster-dns", list: true, usage: "address of the cluster's DNS service, from the range of services; of a dual-stack cluster, one of each family (default: the 10th of each range, " + DefaultClusterDNS + ")",
		set: addresses("cluster-dns", func(c *Config) *[]netip.Addr { return &c.ClusterDNS })},
	{name: "cluster-domain", usage: "DNS domain of services and pods (default " + DefaultClusterDomain + ")",
		set: one(func(c *Config, v Value) error {
			if problems := validation.IsDNS1123Subdomain(v.Text); len(problems) > 0 {
				return &Error{v.Source, fmt.Sprintf("%q can't be a domain: %s", v.Text, problems[0])}
			}
			c.ClusterDomain = v.Text
			return nil
		})},
	{name: "resolv-conf", usage: "resolv.conf with the name servers that pods and the cluster's DNS use for other names (default: the host's, but no stub on a loopback address)",
		set: one(func(c *Config, v Value) error {
			if _, err := readSmall(v.Text, maxFile); err != nil {
				return &Error{v.Source, fmt.Sprintf("read the name servers: %v", err)}
			}
			return path(func(c *Config) *string { return &c.ResolvConf })(c, []Value{v})
		})},
	{name: "default-local-storage-path", usage: "where volumes on the node's disk lie (default <data-dir>/storage)",
		set: path(func(c *Config) *string { return &c.LocalStoragePath })},
	{name: "datastore-sync", usage: "when a write counts as done: full (on the disk), normal (spares flash cards; a power cut loses the last writes) (default full)",
		set: choice(func(c *Config) *string { return &c.DatastoreSync }, "full", "normal")},
	{name: "snapshot-schedule", usage: "when snapshots of the datastore are made, as in a crontab, or off (default " + DefaultSnapshotSchedule + ")",
		set: one(func(c *Config, v Value) error {
			if v.Text == "off" {
				c.SnapshotSchedule = ""
				return nil
			}
			if _, err := cron.ParseStandard(v.Text); err != nil {
				return &Error{v.Source, fmt.Sprintf("%q is neither off nor a schedule such as %q or @daily: %v", v.Text, DefaultSnapshotSchedule, err)}
			}
			c.SnapshotSchedule = v.Text
			return nil
		})},
	{name: "snapshot-retention", usage: "how many scheduled snapshots are kept (default " + strconv.Itoa(DefaultSnapshotRetention) + ")",
		set: number(func(c *Config) *int { return &c.SnapshotRetention }, 1, 1000)},
	{name: "snapshot-dir", usage: "where snapshots lie (default <data-dir>/server/snapshots)",
		set: path(func(c *Config) *string { return &c.SnapshotDir })},
	{name: "kube-apiserver-arg", list: true, usage: "flag for kube-apiserver, as name=value",
		set: upstream(func(c *Config) *[]Value { return &c.APIServerArgs })},
	{name: "kube-controller-manager-arg", list: true, usage: "flag for kube-controller-manager, as name=value",
		set: upstream(func(c *Config) *[]Value { return &c.ControllerManagerArgs })},
	{name: "kube-scheduler-arg", list: true, usage: "flag for kube-scheduler, as name=value",
		set: upstream(func(c *Config) *[]Value { return &c.SchedulerArgs })},
	{name: "kubelet-arg", list: true, usage: "flag for the kubelet, as name=value",
		set: upstream(func(c *Config) *[]Value { return &c.KubeletArgs })},
	{name: "kube-proxy-arg", list: true, usage: "flag for kube-proxy, as name=value",
		set: upstream(func(c *Config) *[]Value { return &c.KubeProxyArgs })},
	{name: "profiling", boolean: true, usage: "let root take Go's profiles of the server from its admin socket",
		set: boolean(func(c *Config) *bool { return &c.Profiling })},
	{name: "log", usage: "file for the log instead of standard error; rotated at 20 MB, the 3 files before it are kept",
		set: path(func(c *Config) *string { return &c.LogFile })},
	{name: "alsologtostderr", boolean: true, usage: "with --log, write the log to standard error as well",
		set: boolean(func(c *Config) *bool { return &c.AlsoLogToStderr })},
	{name: "log-format", usage: "form of the log's lines: text, json (default text)",
		set: choice(func(c *Config) *string { return &c.LogFormat }, "text", "json")},
	{name: "debug", boolean: true, usage: "log more: the information of Kubernetes' parts, and details of the core and the components",
		set: boolean(func(c *Config) *bool { return &c.Debug })},
}

func setToken(c *Config, v Value) error {
	if v.Text == "" {
		return &Error{v.Source, "the token is empty"}
	}
	if len(v.Text) > 4096 || strings.ContainsAny(v.Text, " \t\r\n") {
		return &Error{v.Source, "the token holds white space or is longer than 4096 bytes"}
	}
	c.Token = v.Text
	return nil
}

// Variable is the environment variable of an option: K3M_NODE_NAME for "node-name".
func Variable(name string) string {
	return "K3M_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// DidYouMean is `, did you mean "x"?` for the nearest of the allowed words, or "" when
// none is near.
func DidYouMean(word string, allowed []string) string {
	meant := nearest.To(word, allowed)
	if meant == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", meant)
}

func readSmall(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a directory", name)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return os.ReadFile(name)
}
