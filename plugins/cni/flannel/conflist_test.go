package flannel

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestConflistGolden(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.42.3.0/24"), netip.MustParsePrefix("fd42:0:0:3::/64")
	for name, test := range map[string]struct {
		filter sdk.PacketFilter
		config string
		own    subnets
	}{
		"vxlan-nftables":           {sdk.NFTables, `{}`, subnets{v4: v4}},
		"vxlan-iptables":           {sdk.IPTables, `{}`, subnets{v4: v4}},
		"vxlan-nftables-dual":      {sdk.NFTables, `{}`, subnets{v4: v4, v6: v6}},
		"host-gw-nftables":         {sdk.NFTables, `{"backend": "host-gw"}`, subnets{v4: v4}},
		"host-gw-iptables-ipv6":    {sdk.IPTables, `{"backend": "host-gw"}`, subnets{v6: v6}},
		"wireguard-nftables-mtu":   {sdk.NFTables, `{"backend": "wireguard", "mtu": 1280}`, subnets{v4: v4}},
		"wireguard-nftables-dual4": {sdk.NFTables, `{"backend": "wireguard"}`, subnets{v4: v4, v6: v6}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _ := parseConfig([]byte(test.config))
			p := &plan{config: cfg, packetFilter: test.filter, paths: sdk.Paths{AgentDir: "/var/lib/k3m/agent"}}
			if test.own.v4.IsValid() {
				p.cluster4 = netip.MustParsePrefix("10.42.0.0/16")
			}
			if test.own.v6.IsValid() {
				p.cluster6 = netip.MustParsePrefix("fd42::/56")
			}
			have, err := conflist(p, test.own, p.podMTU(1500))
			must(t, err)
			golden := filepath.Join("testdata/conflist", name+".json")
			if *update {
				must(t, os.WriteFile(golden, have, 0o644))
			}
			want, err := os.ReadFile(golden)
			must(t, err)
			if string(have) != string(want) {
				t.Errorf("%s differs (go test -update writes it):\n%s", golden, have)
			}
		})
	}
}

func TestWriteConflist(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net.d")
	path := filepath.Join(dir, conflistName)
	must(t, writeConflist(dir, []byte("one")))
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(path, old, old))
	must(t, writeConflist(dir, []byte("one")))
	if info, err := os.Stat(path); err != nil || !info.ModTime().Equal(old) {
		t.Errorf("the same content was written again: %v, %v", info.ModTime(), err)
	}
	must(t, writeConflist(dir, []byte("two")))
	if have, err := os.ReadFile(path); err != nil || string(have) != "two" {
		t.Errorf("have %q, %v", have, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left beside it: %v, %v", entries, err)
	}
}

func TestInstallExecutables(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "bin")
	for _, name := range executables {
		must(t, os.WriteFile(filepath.Join(from, name), []byte("new "+name), 0o755))
	}
	must(t, os.MkdirAll(to, 0o755))
	must(t, os.WriteFile(filepath.Join(to, "bridge"), []byte("an old one"), 0o755))
	must(t, os.WriteFile(filepath.Join(to, "mine"), []byte("mine"), 0o755))
	for range 2 {
		must(t, installExecutables(from, to))
		for _, name := range executables {
			if have, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(have) != "new "+name {
				t.Errorf("%s is %q, %v", name, have, err)
			}
		}
		if entries, _ := os.ReadDir(to); len(entries) != len(executables)+1 {
			t.Errorf("in the directory: %v", entries)
		}
	}

	t.Run("a copy is known again", func(t *testing.T) {
		from, to := filepath.Join(from, "portmap"), filepath.Join(t.TempDir(), "portmap")
		must(t, copyFile(from, to))
		before, err := os.Stat(to)
		must(t, err)
		must(t, installExecutable(from, to))
		if after, err := os.Stat(to); err != nil || !os.SameFile(before, after) {
			t.Errorf("the copy was replaced: %v", err)
		}
		must(t, removeInstalled(from, to))
		if _, err := os.Stat(to); !os.IsNotExist(err) {
			t.Errorf("the copy was not removed: %v", err)
		}
	})
}

// TestAddressDirIsOpen has the component's umask: network-policy.nftables, another user,
// watches the names in the directory.
func TestAddressDirIsOpen(t *testing.T) {
	p := &plan{paths: sdk.Paths{AgentDir: t.TempDir()}}
	old := syscall.Umask(0o077)
	err := p.makeAddressDir()
	syscall.Umask(old)
	must(t, err)
	for dir, want := range map[string]os.FileMode{"cni": 0o711, "cni/networks": 0o755, "cni/networks/" + networkName: 0o755} {
		info, err := os.Stat(filepath.Join(p.paths.AgentDir, dir))
		must(t, err)
		if have := info.Mode().Perm(); have != want {
			t.Errorf("%s has mode %o, want %o", dir, have, want)
		}
	}
}
