package flannel

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

func TestContract(t *testing.T) {
	l := newLAN(t)
	l.api.put("plugintest", "10.42.0.0/24")
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(kubeconfig, []byte(l.api.kubeconfig()), 0o600))
	t.Cleanup(func() { must(t, removeLinks(state{}, nil)) })
	self, err := os.Executable()
	must(t, err)
	plugintest.Run(t, plugintest.Options{
		New:        New,
		Executable: self, // see TestMain
		Args:       []string{"cni.flannel"},
		Facts: sdk.Facts{
			NodeIPs: []netip.Addr{netip.MustParseAddr(lanPrefix4 + "1")},
			Paths:   sdk.Paths{CarriedCNIDir: carriedExecutables(t)},
		},
		Kubeconfig: kubeconfig,
		Config:     json.RawMessage(`{"backend": "vxlan", "interface": "lan0", "mtu": 1400, "port": 4789, "vni": 42}`),
		BadConfigs: badConfigs,
		WhileReady: func(t *testing.T, facts sdk.Facts) {
			for _, name := range []string{bridgeName, "flannel.42"} {
				if _, err := netlink.LinkByName(name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := os.Stat(filepath.Join(facts.Paths.CNIConfDir, conflistName)); err != nil {
				t.Error(err)
			}
		},
	})
}

func TestVersionIsFlannels(t *testing.T) {
	raw, err := os.ReadFile("../../../go.mod")
	must(t, err)
	required := regexp.MustCompile(`flannel-io/flannel v(\S+)`).FindSubmatch(raw)
	if required == nil || string(required[1]) != version {
		t.Errorf("go.mod requires flannel %s, the component says %s", required, version)
	}
}
