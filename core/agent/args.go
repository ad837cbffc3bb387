package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	conversion "k8s.io/kubernetes/pkg/kubelet/apis/config/v1beta1"
	"k8s.io/kubernetes/pkg/kubelet/kubeletconfig/configfiles"
	utilfs "k8s.io/kubernetes/pkg/util/filesystem"

	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// CheckArgs finds arguments that the kubelet or kube-proxy of this version could not take, with
// the flag's name in the error. It touches nothing, and is for the configuration to call.
//
// Flags of the whole process (feature-gates, v, vmodule, logging-format and its like) are checked
// for contradictions, and applied, where all parts' arguments are known: controlplane.Args. The
// agent only adds its own feature gates, and raises the verbosity.
func CheckArgs(kubelet, proxy []string) error {
	o := Options{NodeName: "node", NodeIPs: []netip.Addr{netip.IPv4Unspecified()}, DataDir: defaultDataDir, PodLogsDir: defaultPodLogsDir, CgroupRoot: "/", KubeletArgs: kubelet}
	cluster := wire.ClusterFacts{ClusterDomain: "cluster.local"}
	if _, err := kubeletServer(o, o.files(), cluster, hostFacts{mode: ModeNFTables, runtimeEndpoint: "unix:///run/cri.sock"}); err != nil {
		return err
	}
	_, _, err := proxyFlags(nil, proxy)
	return err
}

// notForKubelet are flags of the kubelet that k3m decides on, with whom to ask instead.
var notForKubelet = map[string]string{
	"kubeconfig":                 "k3m makes it",
	"bootstrap-kubeconfig":       "k3m joins nodes by itself",
	"hostname-override":          "use --node-name",
	"node-ip":                    "use --node-ip",
	"container-runtime-endpoint": "use --enable runtime=NAME",
	"runonce":                    "k3m keeps the kubelet running",
}

// parseKubeletArgs applies --kubelet-arg values. Upstream's own flag sets parse them, so that
// everything the kubelet of this version knows is known here.
func parseKubeletArgs(s *options.KubeletServer, args []string) error {
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	s.AddFlags(fs)
	return parseArgs("--kubelet-arg", fs, notForKubelet, args)
}

// parseArgs sets "name=value" arguments in fs. Errors name the flag, the argument and what to
// do about it.
func parseArgs(flag string, fs *pflag.FlagSet, forbidden map[string]string, args []string) error {
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		name = strings.ReplaceAll(strings.TrimLeft(name, "-"), "_", "-")
		f := fs.Lookup(name)
		if f == nil {
			return fmt.Errorf("%s %s: %s of this version has no such flag", flag, name, fs.Name())
		}
		if hint := forbidden[name]; hint != "" {
			return fmt.Errorf("%s %s: can't be set: %s", flag, name, hint)
		}
		if !ok {
			if f.NoOptDefVal == "" {
				return fmt.Errorf("%s %s: has no value; write %s=VALUE", flag, name, name)
			}
			value = f.NoOptDefVal
		}
		// Not fs.Set: that prints a deprecation for nearly every flag of the kubelet.
		if err := f.Value.Set(value); err != nil {
			return fmt.Errorf("%s %s: %w", flag, name, err)
		}
		f.Changed = true
	}
	return nil
}

// applyKubeletFiles lays the KubeletConfiguration files that the arguments name (config=FILE,
// and config-dir=DIR with its *.conf) over what k3m sets, in the order of the arguments. A file
// changes the keys that it holds; flags win over files, as in the kubelet itself.
func applyKubeletFiles(kc *kubeletconfig.KubeletConfiguration, args []string) error {
	var files []string
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch strings.ReplaceAll(strings.TrimLeft(name, "-"), "_", "-") {
		case "config":
			files = append(files, value)
		case "config-dir":
			found, err := filepath.Glob(filepath.Join(value, "*.conf"))
			if err != nil || len(found) == 0 {
				return fmt.Errorf("--kubelet-arg config-dir: no file %s/*.conf", value)
			}
			slices.Sort(found)
			files = append(files, found...)
		}
	}
	for _, file := range files {
		if err := applyKubeletFile(kc, file); err != nil {
			return fmt.Errorf("--kubelet-arg config: %s: %w", file, err)
		}
	}
	return nil
}

func applyKubeletFile(kc *kubeletconfig.KubeletConfiguration, file string) error {
	loader, err := configfiles.NewFsLoader(&utilfs.DefaultFs{}, file)
	if err != nil {
		return err
	}
	text, kind, err := loader.LoadIntoJSON()
	if err != nil {
		return err
	}
	if want := kubeletv1beta1.SchemeGroupVersion.WithKind("KubeletConfiguration"); kind == nil || *kind != want {
		return fmt.Errorf("is not a KubeletConfiguration of %s", kubeletv1beta1.SchemeGroupVersion)
	}
	var versioned kubeletv1beta1.KubeletConfiguration
	if err := conversion.Convert_config_KubeletConfiguration_To_v1beta1_KubeletConfiguration(kc, &versioned, nil); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&versioned); err != nil {
		return err
	}
	conversion.SetDefaults_KubeletConfiguration(&versioned)
	return conversion.Convert_v1beta1_KubeletConfiguration_To_config_KubeletConfiguration(&versioned, kc, nil)
}
