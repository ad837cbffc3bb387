package agent

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"

	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// kubeletServer builds the kubelet's configuration: upstream's defaults, then k3m's, then what
// the user's --kubelet-arg say.
func kubeletServer(o Options, f files, cluster wire.ClusterFacts, h hostFacts) (*options.KubeletServer, error) {
	config, err := options.NewKubeletConfiguration()
	if err != nil {
		return nil, fmt.Errorf("make the default configuration: %w", err)
	}
	s := &options.KubeletServer{KubeletFlags: *options.NewKubeletFlags(), KubeletConfiguration: *config}

	s.KubeConfig = f.kubeletKubeconfig
	s.HostnameOverride = o.NodeName
	s.NodeIP = joinAddrs(o.NodeIPs)
	s.RootDirectory = o.path("kubelet")
	s.CertDirectory = o.path("kubelet", "pki")

	// Only the API server calls the kubelet, at the node's address, with a certificate of the
	// client CA or a token that the API knows; the API decides what each may do.
	s.Address = o.NodeIPs[0].String()
	s.ReadOnlyPort = 0
	s.Authentication.Anonymous.Enabled = false
	s.Authentication.Webhook.Enabled = true
	s.Authentication.X509.ClientCAFile = f.clientCA
	s.Authorization.Mode = kubeletconfig.KubeletAuthorizationModeWebhook
	s.TLSCertFile = f.servingCert
	s.TLSPrivateKeyFile = f.servingKey
	s.HealthzBindAddress = "127.0.0.1"
	// Certificates are renewed by joining again, at each start.
	s.RotateCertificates = false

	s.ContainerRuntimeEndpoint = h.runtimeEndpoint
	s.CgroupDriver = "cgroupfs" // for runtimes that don't say which one they use
	s.CgroupRoot = o.CgroupRoot
	s.FailCgroupV1 = false
	s.FailSwapOn = false
	s.OOMScoreAdj = h.oomScoreAdj

	s.ClusterDNS = cluster.ClusterDNS
	s.ClusterDomain = cluster.ClusterDomain
	s.ResolverConfig = h.resolvConf
	s.PodLogsDir = o.PodLogsDir
	s.VolumePluginDir = o.path("kubelet-plugins", "volume", "exec")

	// Small machines have small disks: k3s's thresholds, in place of upstream's 10 and 15 %.
	// Evicting for lack of memory is left to the kernel's OOM killer, as there.
	s.EvictionHard = map[string]string{"imagefs.available": "5%", "nodefs.available": "5%"}
	s.EvictionMinimumReclaim = map[string]string{"imagefs.available": "10%", "nodefs.available": "10%"}
	// Images are pulled and unpacked side by side; one slow pull holds up nobody.
	s.SerializeImagePulls = false
	// Each block of a goroutine would be an event: costs CPU and nobody looks.
	s.EnableContentionProfiling = false
	// The chains are a hint for iptables users about the flavour in use; where kube-proxy
	// uses nftables there need not be an iptables at all.
	s.MakeIPTablesUtilChains = h.mode == ModeIPTables

	if err := parseKubeletArgs(s, o.KubeletArgs); err != nil {
		return nil, err
	}
	if err := options.ValidateKubeletFlags(&s.KubeletFlags); err != nil {
		return nil, fmt.Errorf("--kubelet-arg: %w", err)
	}
	if err := validation.ValidateKubeletConfiguration(&s.KubeletConfiguration, utilfeature.DefaultFeatureGate); err != nil {
		return nil, fmt.Errorf("--kubelet-arg: %w", err)
	}
	return s, nil
}

// hostFacts are what kubeletServer has to know of the machine.
type hostFacts struct {
	mode            Mode
	runtimeEndpoint string
	resolvConf      string
	oomScoreAdj     int32
}

// notForKubelet are flags of the kubelet that k3m decides on, with whom to ask instead.
var notForKubelet = map[string]string{
	"config":                     "pass the single flags instead",
	"config-dir":                 "pass the single flags instead",
	"kubeconfig":                 "k3m makes it",
	"bootstrap-kubeconfig":       "k3m joins nodes by itself",
	"hostname-override":          "use --node-name",
	"node-ip":                    "use --node-ip",
	"container-runtime-endpoint": "use --enable runtime=NAME",
	"runonce":                    "k3m keeps the kubelet running",
}

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

func joinAddrs(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, ",")
}
