package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
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
	s.NodeLabels = map[string]string{} // an argument may add to it
	maps.Copy(s.NodeLabels, o.Labels)
	s.RegisterWithTaints = o.Taints
	if len(o.ExternalIPs) > 0 {
		s.CloudProvider = "external" // see NodeAddresses
	}
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
	// Certificates are renewed by joining again: see renew.
	s.RotateCertificates = false

	s.ContainerRuntimeEndpoint = h.runtimeEndpoint
	s.CgroupDriver = "cgroupfs" // for runtimes that don't say which one they use
	s.CgroupRoot = o.CgroupRoot
	s.FailCgroupV1 = false
	s.FailSwapOn = false
	s.OOMScoreAdj = h.oomScoreAdj
	s.ProtectKernelDefaults = o.ProtectKernelDefaults

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

	if err := applyKubeletFiles(&s.KubeletConfiguration, o.KubeletArgs); err != nil {
		return nil, err
	}
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

func joinAddrs(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, ",")
}
