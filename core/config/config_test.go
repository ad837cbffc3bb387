package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// load is Load with a command line, variables and the text of a configuration file.
func load(t *testing.T, args []string, vars map[string]string, file string) (*Config, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	fs := pflag.NewFlagSet("server", pflag.ContinueOnError)
	Flags(fs)
	if err := fs.Parse(append([]string{"--config", name}, args...)); err != nil {
		t.Fatal(err)
	}
	return Load(fs, Environment{
		Lookup:   func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		Hostname: func() (string, error) { return "Edge-1", nil },
	})
}

func TestPrecedence(t *testing.T) {
	file := "node-name: from-file\ndisable: [servicelb, dns]\n"
	for name, tc := range map[string]struct {
		args     []string
		vars     map[string]string
		nodeName string
		source   string
	}{
		"file":        {nodeName: "from-file", source: "config.yaml:2:11"},
		"environment": {vars: map[string]string{"K3M_NODE_NAME": "from-env", "K3M_DISABLE": "ingress"}, nodeName: "from-env", source: "K3M_DISABLE"},
		"flag": {args: []string{"--node-name=from-flag", "--disable", "cni"},
			vars: map[string]string{"K3M_NODE_NAME": "from-env"}, nodeName: "from-flag", source: "--disable"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, tc.args, tc.vars, file)
			if err != nil {
				t.Fatal(err)
			}
			if c.NodeName != tc.nodeName {
				t.Errorf("node name %q, want %q", c.NodeName, tc.nodeName)
			}
			if !strings.HasSuffix(c.Disable[0].Source, tc.source) {
				t.Errorf("disable is from %q, want %q", c.Disable[0].Source, tc.source)
			}
		})
	}
}

func TestHostnameIsTheDefaultNodeName(t *testing.T) {
	c, err := load(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if c.NodeName != "edge-1" {
		t.Errorf("node name %q, want the hostname in lower case", c.NodeName)
	}
}

func TestMistakes(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		vars map[string]string
		file string
		want []string
	}{
		"unknown key":            {file: "disable: []\nenabel: [dns]\n", want: []string{"config.yaml:2:1", `"enabel"`, `"enable"`}},
		"key twice":              {file: "node-name: a\nnode-name: b\n", want: []string{"config.yaml:2:1", "config.yaml:1:1"}},
		"list for one text":      {file: "node-name: [a]\n", want: []string{"config.yaml:1:12", "one text"}},
		"map for a list":         {file: "enable: {dns: coredns}\n", want: []string{"config.yaml:1:9", "list of texts"}},
		"not a mapping":          {file: "- a\n", want: []string{"config.yaml:1:1"}},
		"two documents":          {file: "node-name: a\n---\nnode-name: b\n", want: []string{"one"}},
		"not YAML":               {file: "enable:\n  - a\n  \tb\n", want: []string{"config.yaml:2:3", "YAML"}},
		"component block":        {file: "components:\n  cni.flannel: vxlan\n", want: []string{"config.yaml:2:16", "cni.flannel"}},
		"bad node name":          {args: []string{"--node-name=Not_Good"}, want: []string{"--node-name", `"Not_Good"`}},
		"bad address":            {vars: map[string]string{"K3M_NODE_IP": "10.0.0.300"}, want: []string{"K3M_NODE_IP", "10.0.0.300"}},
		"two addresses":          {args: []string{"--node-ip=10.0.0.1", "--node-ip=10.0.0.2"}, want: []string{"--node-ip", "10.0.0.2", "one of each family"}},
		"IPv6 address":           {args: []string{"--node-ip=2001:db8::1"}, want: []string{"2001:db8::1", "10.42.0.0/16"}},
		"backend":                {args: []string{"--flannel-backend=vxlam"}, want: []string{"--flannel-backend", `"vxlam"`, `"vxlan"`, "host-gw"}},
		"DNS address":            {args: []string{"--cluster-dns=10.43.0.300"}, want: []string{"--cluster-dns", `"10.43.0.300"`, "IPv4 or IPv6"}},
		"domain":                 {file: "cluster-domain: Cluster_Local\n", want: []string{"config.yaml:1:17", "Cluster_Local"}},
		"resolv.conf missing":    {args: []string{"--resolv-conf=/nonexistent/resolv.conf"}, want: []string{"--resolv-conf", "/nonexistent/resolv.conf"}},
		"storage path":           {file: "default-local-storage-path: ''\n", want: []string{"config.yaml:1:29", "empty"}},
		"upstream arg":           {args: []string{"--kubelet-arg=--v=2"}, want: []string{"--kubelet-arg", "name=value"}},
		"token and token-file":   {args: []string{"--token=a", "--token-file=/x"}, want: []string{"--token", "--token-file"}},
		"token file missing":     {args: []string{"--token-file=/nonexistent/token"}, want: []string{"--token-file", "/nonexistent/token"}},
		"token with spaces":      {vars: map[string]string{"K3M_TOKEN": "a b"}, want: []string{"K3M_TOKEN", "white space"}},
		"two ranges of a family": {args: []string{"--cluster-cidr=10.42.0.0/16,10.44.0.0/16"}, want: []string{"--cluster-cidr", "10.44.0.0/16", "second IPv4"}},
		"range within a range":   {args: []string{"--service-cidr=10.43.0.1/16"}, want: []string{"--service-cidr", `"10.43.0.0/16"`}},
		"range too large":        {file: "service-cidr: fd43::/64\n", want: []string{"config.yaml:1:15", "/64", "/108 to /124"}},
		"families that differ":   {args: []string{"--cluster-cidr=10.42.0.0/16,fd42::/56"}, want: []string{"--cluster-cidr", "--service-cidr", "same families"}},
		"ranges overlap":         {args: []string{"--service-cidr=10.42.128.0/17"}, want: []string{"--service-cidr", "10.42.0.0/16", "overlap"}},
		"node in a range":        {args: []string{"--node-ip=10.42.3.4"}, want: []string{"--node-ip", "10.42.3.4", "10.42.0.0/16"}},
		"node lacks a family": {args: []string{"--cluster-cidr=10.42.0.0/16,fd42::/56", "--service-cidr=10.43.0.0/16,fd43::/112", "--node-ip=192.0.2.1"},
			want: []string{"--node-ip", "fd42::/56"}},
		"node ports with the kubelet": {args: []string{"--service-node-port-range=10000-20000"}, want: []string{"--service-node-port-range", "10250", "kubelet"}},
		"node ports with the API":     {args: []string{"--service-node-port-range=6000-7000"}, want: []string{"--service-node-port-range", "6443", "API"}},
		"node ports backwards":        {args: []string{"--service-node-port-range=32767-30000"}, want: []string{`"32767-30000"`, "FIRST-LAST"}},
		"port out of range":           {file: "https-listen-port: 70000\n", want: []string{"config.yaml:1:20", `"70000"`, "1 to 65535"}},
		"the kubelet's port":          {args: []string{"--https-listen-port=10250"}, want: []string{"--https-listen-port", "kubelet"}},
		"bind to a name":              {args: []string{"--bind-address=localhost"}, want: []string{"--bind-address", `"localhost"`}},
		"advertise the loopback":      {args: []string{"--advertise-address=127.0.0.1"}, want: []string{"--advertise-address", "loopback"}},
		"advertise the other family":  {args: []string{"--advertise-address=2001:db8::1"}, want: []string{"--advertise-address", "10.43.0.0/16"}},
		"SAN with a port":             {file: "tls-san:\n  - good\n  - bad:6443\n", want: []string{"config.yaml:3:5", `"bad:6443"`}},
		"mode for everybody":          {args: []string{"--write-kubeconfig-mode=0777"}, want: []string{"--write-kubeconfig-mode", `"0777"`, "0640"}},
		"mode that is none":           {args: []string{"--write-kubeconfig-mode=rw"}, want: []string{`"rw"`}},
		"unknown group":               {args: []string{"--write-kubeconfig-group=no-such-group"}, want: []string{`"no-such-group"`, "getent"}},
		"label without value":         {args: []string{"--node-label=a"}, want: []string{"--node-label", `"a"`, "KEY=VALUE"}},
		"label of Kubernetes":         {args: []string{"--node-label=node-role.kubernetes.io/x=true"}, want: []string{"node-role.kubernetes.io/x", "kubectl label"}},
		"unknown effect":              {file: "node-taint: a=b:NoShedule\n", want: []string{"config.yaml:1:13", `"NoShedule"`, `"NoSchedule"`}},
		"taint twice":                 {args: []string{"--node-taint=a=b:NoExecute", "--node-taint=a=c:NoExecute"}, want: []string{"a:NoExecute", "twice"}},
		"external address":            {vars: map[string]string{"K3M_NODE_EXTERNAL_IP": "fe80::1"}, want: []string{"K3M_NODE_EXTERNAL_IP", "fe80::1"}},
		"neither true nor false":      {file: "debug: yes\n", want: []string{"config.yaml:1:8", `"yes"`, "true", "false"}},
		"descriptor not a number":     {args: []string{"--token-fd=x"}, want: []string{"--token-fd", `"x"`}},
		"snapshotter":                 {args: []string{"--snapshotter=overlay"}, want: []string{"--snapshotter", `"overlay"`, "overlayfs, native, fuse-overlayfs"}},
		"pause image":                 {file: "pause-image: Pause:1\n", want: []string{"config.yaml:1:14", `"Pause:1"`, "registry.example.com/pause:3.10"}},
		"default endpoint":            {args: []string{"--disable-default-registry-endpoint=yes"}, want: []string{"--disable-default-registry-endpoint", "neither true nor false"}},
		"private registry":            {vars: map[string]string{"K3M_PRIVATE_REGISTRY": ""}, file: "private-registry: ''\n", want: []string{"config.yaml:1:19", "empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tc.args, tc.vars, tc.file)
			var mistake *Error
			if !errors.As(err, &mistake) {
				t.Fatalf("error is %v, want a *config.Error", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is more than one line", err)
			}
		})
	}
}

func TestWhatFollowsFromTheDataDirectory(t *testing.T) {
	for args, want := range map[string]string{
		"":                    DefaultDataDir + "/storage",
		"--data-dir=/srv/k3m": "/srv/k3m/storage",
		"--data-dir=/srv/k3m --default-local-storage-path=/mnt/ssd": "/mnt/ssd",
	} {
		c, err := load(t, strings.Fields(args), nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if c.LocalStoragePath != want {
			t.Errorf("%q: volumes lie in %s, want %s", args, c.LocalStoragePath, want)
		}
	}
}

func TestComponentBlocks(t *testing.T) {
	c, err := load(t, nil, nil, "components:\n  cni.flannel:\n    backend: host-gw\n    mtu: 1400\n")
	if err != nil {
		t.Fatal(err)
	}
	block := c.Components["cni.flannel"]
	if string(block.Raw) != `{"backend":"host-gw","mtu":1400}` || !strings.HasSuffix(block.Source, "config.yaml:2:3") {
		t.Errorf("block is %s from %s", block.Raw, block.Source)
	}
}

func TestTokenOfAStrongerSourceReplacesAWeakerTokenFile(t *testing.T) {
	c, err := load(t, []string{"--token=strong"}, nil, "token-file: /nonexistent\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Token != "strong" {
		t.Errorf("token is %q", c.Token)
	}
}

func TestDataDirAgreesWithLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte("data-dir: "+dir+"/from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		vars map[string]string
		want string
	}{
		"default":   {want: DefaultDataDir},
		"file":      {args: []string{"server", "--config", file}, want: dir + "/from-file"},
		"variable":  {args: []string{"server", "--config=" + file}, vars: map[string]string{"K3M_DATA_DIR": dir + "/env"}, want: dir + "/env"},
		"flag":      {args: []string{"server", "--data-dir", dir + "/flag"}, vars: map[string]string{"K3M_DATA_DIR": dir}, want: dir + "/flag"},
		"last flag": {args: []string{"--data-dir=/a", "--data-dir=" + dir}, want: dir},
		"file by environment": {vars: map[string]string{"K3M_CONFIG": file},
			want: dir + "/from-file"},
		"after the dashes": {args: []string{"kubectl", "--", "--data-dir=/a"}, want: DefaultDataDir},
	} {
		t.Run(name, func(t *testing.T) {
			got := DataDir(tc.args, func(name string) (string, bool) { v, ok := tc.vars[name]; return v, ok })
			if got != tc.want {
				t.Errorf("data directory is %q, want %q", got, tc.want)
			}
		})
	}
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("enable: [ingress=nginx]\ncomponents:\n  cni.flannel: {backend: vxlan}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("enable+: [x]\ncomponents:\n  a.b:\n    pools: [{size: 1}, &x {size: 2}, *x]\n    gone: null\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		parsed, err := parseFile("config.yaml", text)
		if err != nil {
			var mistake *Error
			if !errors.As(err, &mistake) {
				t.Errorf("error %v does not name its place", err)
			}
			return
		}
		if _, err := parsed.blocks(); err != nil {
			t.Errorf("a block that was accepted: %v", err)
		}
		for name, values := range parsed.values {
			if lookupOption(name) == nil {
				t.Errorf("accepted the unknown key %q", name)
			}
			for _, v := range values {
				if v.Source == "" {
					t.Errorf("value %q of %q has no source", v.Text, name)
				}
			}
		}
	})
}
