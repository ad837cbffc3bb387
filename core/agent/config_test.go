package agent

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"

	"github.com/k3m-io/k3m/core/supervisor/wire"
)

func itoa(i int32) string { return strconv.Itoa(int(i)) }

func testOptions() Options {
	o, err := Options{
		NodeName: "n1", NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")},
		DataDir: "/data", ServerURL: "https://127.0.0.1:6443", Token: "t", CgroupRoot: "/k3mabc", Runtime: neverRuntime,
	}.complete()
	if err != nil {
		panic(err)
	}
	return o
}

var testCluster = wire.ClusterFacts{
	ClusterCIDRs: []string{"10.42.0.0/16"}, ServiceCIDRs: []string{"10.43.0.0/16"},
	ClusterDNS: []string{"10.43.0.10"}, ClusterDomain: "cluster.local",
}

func render(args ...string) (*options.KubeletServer, error) {
	o := testOptions()
	o.KubeletArgs = args
	return kubeletServer(o, o.files(), testCluster, hostFacts{
		mode: ModeNFTables, runtimeEndpoint: "unix:///run/k3m/containerd.sock", resolvConf: "/etc/resolv.conf", oomScoreAdj: -999,
	})
}

func TestKubeletConfiguration(t *testing.T) {
	s, err := render()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ got, want any }{
		"anonymous access":    {s.Authentication.Anonymous.Enabled, false},
		"token webhook":       {s.Authentication.Webhook.Enabled, true},
		"authorization":       {s.Authorization.Mode, kubeletconfig.KubeletAuthorizationModeWebhook},
		"client CA":           {s.Authentication.X509.ClientCAFile, "/data/agent/tls/client-ca.crt"},
		"read-only port":      {s.ReadOnlyPort, int32(0)},
		"address":             {s.Address, "192.0.2.7"},
		"node addresses":      {s.NodeIP, "192.0.2.7,2001:db8::7"},
		"name":                {s.HostnameOverride, "n1"},
		"root directory":      {s.RootDirectory, "/data/agent/kubelet"},
		"pod logs":            {s.PodLogsDir, "/data/agent/pod-logs"},
		"volume plugins":      {s.VolumePluginDir, "/data/agent/kubelet-plugins/volume/exec"},
		"cgroup root":         {s.CgroupRoot, "/k3mabc"},
		"cgroup v1":           {s.FailCgroupV1, false},
		"swap":                {s.FailSwapOn, false},
		"domain":              {s.ClusterDomain, "cluster.local"},
		"DNS":                 {strings.Join(s.ClusterDNS, ","), "10.43.0.10"},
		"nodefs":              {s.EvictionHard["nodefs.available"], "5%"},
		"iptables chains":     {s.MakeIPTablesUtilChains, false},
		"contention profiles": {s.EnableContentionProfiling, false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

func TestPodLogsDirOfTheDefaultNode(t *testing.T) {
	o := testOptions()
	o.DataDir, o.PodLogsDir = "/var/lib/k3m/", ""
	o, err := o.complete()
	if err != nil || o.PodLogsDir != "/var/log/pods" {
		t.Errorf("%q, %v; want /var/log/pods, where log collectors look", o.PodLogsDir, err)
	}
}

func TestKubeletArgs(t *testing.T) {
	s, err := render("max-pods=42", "--node-labels=a=b,c=d", "eviction_hard=nodefs.available<1%", "register-with-taints=k=v:NoSchedule", "seccomp-default")
	if err != nil {
		t.Fatal(err)
	}
	if s.MaxPods != 42 || s.NodeLabels["c"] != "d" || len(s.EvictionHard) != 1 || s.EvictionHard["nodefs.available"] != "1%" || len(s.RegisterWithTaints) != 1 || !s.KubeletFlags.SeccompDefault {
		t.Errorf("got maxPods %d, labels %v, eviction %v, taints %v, seccomp %v", s.MaxPods, s.NodeLabels, s.EvictionHard, s.RegisterWithTaints, s.KubeletFlags.SeccompDefault)
	}
	for name, c := range map[string]struct{ arg, want string }{
		"unknown flag":       {"max-podz=42", "--kubelet-arg max-podz: kubelet of this version has no such flag"},
		"bad value":          {"max-pods=many", "--kubelet-arg max-pods: strconv.ParseInt"},
		"no value":           {"max-pods", "--kubelet-arg max-pods: has no value; write max-pods=VALUE"},
		"value out of range": {"port=0", "--kubelet-arg: invalid configuration: port (--port) 0 must be between 1 and 65535"},
		"what k3m decides":   {"kubeconfig=/tmp/x", "--kubelet-arg kubeconfig: can't be set: k3m makes it"},
		"forbidden label":    {"node-labels=node-role.kubernetes.io/master=", "--kubelet-arg: unknown 'kubernetes.io' or 'k8s.io' labels"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := render(c.arg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func TestKubeletConfigurationFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
	file := write("kubelet.yaml", head+"maxPods: 42\nimageMaximumGCAge: 48h\nauthentication:\n  webhook:\n    cacheTTL: 1m\n")
	write("10-first.conf", head+"maxPods: 43\npodsPerCore: 7\n")
	write("20-second.conf", head+"maxPods: 44\n")

	s, err := render("config=" + file)
	if err != nil {
		t.Fatal(err)
	}
	if s.MaxPods != 42 || s.ImageMaximumGCAge.Duration != 48*time.Hour {
		t.Errorf("maxPods %d, imageMaximumGCAge %v", s.MaxPods, s.ImageMaximumGCAge)
	}
	if s.Authentication.Anonymous.Enabled || !s.Authentication.Webhook.Enabled || s.Authentication.X509.ClientCAFile == "" || s.CgroupRoot != "/k3mabc" || s.FailCgroupV1 {
		t.Error("the file took away what k3m sets")
	}
	s, err = render("config="+file, "config-dir="+dir)
	if err != nil || s.MaxPods != 44 || s.PodsPerCore != 7 {
		t.Errorf("directory over file: maxPods %d, podsPerCore %d, %v", s.MaxPods, s.PodsPerCore, err)
	}
	s, err = render("max-pods=45", "config-dir="+dir)
	if err != nil || s.MaxPods != 45 {
		t.Errorf("flag over directory: maxPods %d, %v", s.MaxPods, err)
	}
	for name, c := range map[string]struct{ arg, want string }{
		"no such file":       {"config=" + filepath.Join(dir, "none"), "none: failed to read"},
		"unknown key":        {"config=" + write("unknown.yaml", head+"maxPodz: 42\n"), "maxPodz"},
		"another kind":       {"config=" + write("kind.yaml", "apiVersion: v1\nkind: Pod\n"), "kind.yaml"},
		"out of range":       {"config=" + write("range.yaml", head+"imageGCHighThresholdPercent: 120\n"), "imageGCHighThresholdPercent"},
		"an empty directory": {"config-dir=" + t.TempDir(), "no file"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := render(c.arg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func TestCheckArgs(t *testing.T) {
	for name, c := range map[string]struct {
		kubelet, proxy []string
		want           string
	}{
		"none":                      {},
		"good ones":                 {[]string{"max-pods=42", "v=2", "feature-gates=MemoryQoS=false"}, []string{"proxy-mode=iptables", "v=2"}, ""},
		"unknown to the kubelet":    {[]string{"max-podz=42"}, nil, "--kubelet-arg max-podz"},
		"unknown to kube-proxy":     {nil, []string{"max-pods=42"}, "--kube-proxy-arg max-pods"},
		"out of the kubelet's mind": {[]string{"image-gc-high-threshold=120"}, nil, "imageGCHighThresholdPercent"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckArgs(c.kubelet, c.proxy)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func TestProxyArgs(t *testing.T) {
	o := testOptions()
	if _, err := newProxy(o, o.files(), testCluster, ModeNFTables, -999); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct{ arg, want string }{
		"a good one":       {"nodeport-addresses=10.0.0.0/8", ""},
		"unknown flag":     {"proxy-modus=nftables", "--kube-proxy-arg proxy-modus: kube-proxy of this version has no such flag"},
		"bad mode":         {"proxy-mode=userspace", "--kube-proxy-arg"},
		"what k3m decides": {"cleanup=true", "--kube-proxy-arg cleanup: can't be set: use k3m uninstall"},
	} {
		t.Run(name, func(t *testing.T) {
			o.KubeProxyArgs = []string{c.arg}
			_, err := newProxy(o, o.files(), testCluster, ModeNFTables, -999)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		change func(o *Options)
		want   string
	}{
		"no name":           {func(o *Options) { o.NodeName = "" }, "no name"},
		"no address":        {func(o *Options) { o.NodeIPs = nil }, "--node-ip"},
		"relative data":     {func(o *Options) { o.DataDir = "data" }, "not absolute"},
		"plain HTTP server": {func(o *Options) { o.ServerURL = "http://127.0.0.1:6443" }, "not a server's address"},
		"no token":          {func(o *Options) { o.Token = "" }, "--token-file"},
		"no runtime":        {func(o *Options) { o.Runtime = nil }, "runtime"},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions()
			c.change(&o)
			if _, err := New(o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("New: %v; want %q", err, c.want)
			}
		})
	}
}
