package plugintest

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk"
)

// Options say which plugin is tested and how. New or Executable is needed; all else has
// a default.
type Options struct {
	// New makes the component, for the checks in process. Each check makes its own.
	New func() sdk.Plugin
	// Executable is the path of the plugin's executable (see Build), for the checks of a
	// real process, and Args its arguments: a multi-call executable's component ID.
	Executable string
	Args       []string

	// Record, if not nil, is the Info that the plugin must have, abilities included:
	// that of a lock file.
	Record *sdk.Info

	// Facts are what Run is given. Fields that are zero get values of a small node on
	// 127.0.0.1 whose directories are temporary.
	Facts sdk.Facts
	// Kubeconfig is the path of a kubeconfig for a component that requires the API.
	Kubeconfig string
	// ServingCert and ServingKey are the paths of a certificate and its key, PEM, for a
	// component that asks for one.
	ServingCert, ServingKey string
	// Config is a good configuration; nil is none.
	Config json.RawMessage
	// BadConfigs must be refused, each with a problem at its path.
	BadConfigs []BadConfig

	// SkipRun, if not empty, is the reason why Run can't be called here: it needs
	// privileges, or a cluster. What is proved without it still is.
	SkipRun string
	// WhileReady, if not nil, is called while the component is ready, with the facts
	// that it was given: the place to see that it does its work.
	WhileReady func(t *testing.T, facts sdk.Facts)
	// SkipCleanup, if not empty, is the reason why Cleanup can't be called here.
	SkipCleanup string

	// ReadyTimeout bounds the wait for Ready: 30 seconds if zero.
	ReadyTimeout time.Duration
	// StopTimeout bounds the wait for the end of Run: 10 seconds if zero, which is what
	// k3m waits.
	StopTimeout time.Duration
}

// BadConfig is a configuration that a plugin must refuse.
type BadConfig struct {
	// Name names the check.
	Name string
	// Config is the block.
	Config json.RawMessage
	// Path is where the problem lies: "port", "pools[0].size".
	Path string
}

func (o Options) withDefaults(t *testing.T) Options {
	o.ReadyTimeout = cmp.Or(o.ReadyTimeout, 30*time.Second)
	o.StopTimeout = cmp.Or(o.StopTimeout, 10*time.Second)
	f := &o.Facts
	f.NodeName = cmp.Or(f.NodeName, "plugintest")
	f.ClusterDomain = cmp.Or(f.ClusterDomain, "cluster.local")
	f.PacketFilter = cmp.Or(f.PacketFilter, sdk.NFTables)
	f.CgroupParent = cmp.Or(f.CgroupParent, "/k3m-plugintest")
	f.PauseImage = cmp.Or(f.PauseImage, "registry.k3m.io/pause:1")
	orAddrs(&f.NodeIPs, "127.0.0.1")
	orAddrs(&f.ClusterDNS, "10.43.0.10")
	orAddrs(&f.PodGateways, "127.0.0.1")
	orPrefixes(&f.ClusterCIDRs, "10.42.0.0/16")
	orPrefixes(&f.ServiceCIDRs, "10.43.0.0/16")
	dir := t.TempDir()
	f.RuntimeEndpoint = cmp.Or(f.RuntimeEndpoint, "unix://"+filepath.Join(dir, "runtime.sock"))
	f.LocalStoragePath = cmp.Or(f.LocalStoragePath, filepath.Join(dir, "storage"))
	if f.ResolvConf == "" {
		f.ResolvConf = filepath.Join(dir, "resolv.conf")
		if err := os.WriteFile(f.ResolvConf, []byte("# names no server\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []struct {
		path *string
		name string
	}{
		{&f.Paths.BinDir, "bin"}, {&f.Paths.CarriedCNIDir, "cni"},
		{&f.Paths.CNIBinDir, "agent/cni/bin"}, {&f.Paths.CNIConfDir, "agent/etc/cni/net.d"},
		{&f.Paths.ImagesDir, "agent/images"}, {&f.Paths.CarriedImagesDir, "images"},
		{&f.Paths.RunDir, "run"}, {&f.Paths.AgentDir, "agent"},
	} {
		if *p.path == "" {
			*p.path = filepath.Join(dir, p.name)
			mkdir(t, *p.path)
		}
	}
	return o
}

func orAddrs(addrs *[]netip.Addr, addr string) {
	if len(*addrs) == 0 {
		*addrs = []netip.Addr{netip.MustParseAddr(addr)}
	}
}

func orPrefixes(prefixes *[]netip.Prefix, prefix string) {
	if len(*prefixes) == 0 {
		*prefixes = []netip.Prefix{netip.MustParsePrefix(prefix)}
	}
}

// Build builds the main package in dir with the go command and returns the path of the
// executable, which lives as long as the test. Flags go before the package: "-ldflags",
// "-X main.mode=good".
func Build(t testing.TB, dir string, flags ...string) string {
	t.Helper()
	executable := filepath.Join(t.TempDir(), "plugin")
	args := append([]string{"build", "-o", executable}, flags...)
	build := exec.CommandContext(t.Context(), "go", append(args, ".")...)
	build.Dir = dir
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build plugin in %s: %v\n%s", dir, err, output)
	}
	return executable
}
