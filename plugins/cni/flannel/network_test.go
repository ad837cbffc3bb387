package flannel

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/k3m-io/k3m/sdk"
)

func TestPodsOfTwoNodesTalk(t *testing.T) {
	for name, test := range map[string]struct {
		filter sdk.PacketFilter
		config string
		mtu    int
	}{
		"vxlan with nftables":   {sdk.NFTables, `{}`, 1450},
		"vxlan with iptables":   {sdk.IPTables, `{"backend": "vxlan", "vni": 7, "port": 4789}`, 1450},
		"host-gw with nftables": {sdk.NFTables, `{"backend": "host-gw"}`, 1500},
		"host-gw with iptables": {sdk.IPTables, `{"backend": "host-gw", "mtu": 1400}`, 1400},
	} {
		t.Run(name, func(t *testing.T) { talk(t, test.filter, test.config, test.mtu) })
	}
}

// talk makes two nodes and lets their pods talk, to each other, the nodes and the world.
func talk(t *testing.T, filter sdk.PacketFilter, config string, mtu int) {
	l := newLAN(t)
	l.api.put("node-2", "10.42.0.0/24")
	l.api.put("node-3", "10.42.1.0/24")
	one, two := l.newHost(2, filter, config), l.newHost(3, filter, config)
	c1, c2 := one.up(), two.up()
	a, b := one.newPod("a"), two.newPod("b")
	if a.addresses[0] != "10.42.0.2" || b.addresses[0] != "10.42.1.2" {
		t.Errorf("pods have the addresses %v and %v", a.addresses, b.addresses)
	}
	for _, p := range []*pod{a, b} {
		if have := p.mtu(); have != mtu {
			t.Errorf("a pod on %s has the MTU %d, want %d", p.host.name, have, mtu)
		}
	}
	serveEcho(t, b.namespace, 80)
	serveEcho(t, "", 8000)
	serveEcho(t, one.namespace, 81)
	expectReach(t, a.namespace, "10.42.1.2:80", "10.42.0.2")
	expectReach(t, a.namespace, "192.168.77.1:8000", "192.168.77.2")
	expectReach(t, a.namespace, "10.42.0.1:81", "10.42.0.2")
	expectReach(t, b.namespace, "10.42.0.1:81", "10.42.1.2")
	c1.stop(t)
	c2.stop(t)
	expectReach(t, a.namespace, "10.42.1.2:80", "10.42.0.2")
}

// wireguard is tested as far as the kernel goes: with it, pods talk; without it, Run says
// what is missing.
func TestWireGuard(t *testing.T) {
	const config = `{"backend": "wireguard"}`
	if err := probeWireGuard(t); err != nil {
		t.Logf("no wireguard in this kernel (%v): pods that talk over it are not tested", err)
		l := newLAN(t)
		l.api.put("node-2", "10.42.0.0/24")
		expectError(t, l.newHost(2, sdk.NFTables, config).run().awaitEnd(t), "this kernel has no wireguard "+
			"(module wireguard): load or install it, or choose another backend (vxlan, host-gw, wireguard)")
		return
	}
	for _, filter := range []sdk.PacketFilter{sdk.NFTables, sdk.IPTables} {
		t.Run(string(filter), func(t *testing.T) { talk(t, filter, config, 1420) })
	}
}

// probeWireGuard makes a device of that type, in a namespace that goes away.
func probeWireGuard(t *testing.T) (err error) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	namespace, release := holdNamespace(t)
	defer release()
	inNamespace(t, namespace, func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "probe"
		err = netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	})
	return err
}

// expectRoute waits until the host has, or has not, a route.
func expectRoute(t *testing.T, h *host, to string, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s has a route to %s: %t", h.name, to, want), func() bool {
		return strings.Contains(h.output("ip", "route"), to) == want
	})
}

// eventually waits for what the kernel or another process does in its own time.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so after 10 s: %s", what)
		}
	}
}

func expectError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want one with %q", err, want)
	}
}

func TestDualStack(t *testing.T) {
	for _, filter := range []sdk.PacketFilter{sdk.NFTables, sdk.IPTables} {
		t.Run(string(filter), func(t *testing.T) {
			l := newLAN(t)
			l.api.put("node-2", "10.42.0.0/24", "fd42::/64")
			l.api.put("node-3", "10.42.1.0/24", "fd42:0:0:1::/64")
			one, two := l.newHost(2, filter, ``), l.newHost(3, filter, ``)
			one.dualStack()
			two.dualStack()
			c := one.run()
			if gateways := c.awaitReady(t); len(gateways) != 2 || gateways[0].String() != "10.42.0.1" || gateways[1].String() != "fd42::1" {
				t.Errorf("gateways: %v", gateways)
			}
			two.up()
			a, b := one.newPod("a"), two.newPod("b")
			if len(a.addresses) != 2 || len(b.addresses) != 2 {
				t.Fatalf("pods have the addresses %v and %v", a.addresses, b.addresses)
			}
			serveEcho(t, b.namespace, 80)
			serveEcho(t, "", 8000)
			expectReach(t, a.namespace, b.addresses[0]+":80", a.addresses[0])
			expectReach(t, a.namespace, "["+b.addresses[1]+"]:80", a.addresses[1])
			expectReach(t, a.namespace, "192.168.77.1:8000", "192.168.77.2")
			expectReach(t, a.namespace, "[fd77::1]:8000", "fd77::2")
			c.stop(t)
			one.up() // a restart finds all in place
			expectReach(t, a.namespace, "["+b.addresses[1]+"]:80", a.addresses[1])
		})
	}
}

func TestIPv6Alone(t *testing.T) {
	for _, backend := range backends[:2] {
		t.Run(backend, func(t *testing.T) {
			l := newLAN(t)
			l.api.put("node-2", "fd42::/64")
			l.api.put("node-3", "fd42:0:0:1::/64")
			config := fmt.Sprintf(`{"backend": %q}`, backend)
			one, two := l.newHost(2, sdk.NFTables, config), l.newHost(3, sdk.NFTables, config)
			for _, h := range []*host{one, two} {
				h.dualStack()
				h.facts.NodeIPs, h.facts.ClusterCIDRs = h.facts.NodeIPs[1:], h.facts.ClusterCIDRs[1:]
				h.up()
			}
			a, b := one.newPod("a"), two.newPod("b")
			serveEcho(t, b.namespace, 80)
			serveEcho(t, "", 8000)
			expectReach(t, a.namespace, "["+b.addresses[0]+"]:80", a.addresses[0])
			expectReach(t, a.namespace, "[fd77::1]:8000", "fd77::2")
		})
	}
}

// What a user or the host may have wrong ends Run with one sentence.
func TestRunRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		config  string
		prepare func(*host)
		want    string
	}{
		"an interface that is not there": {
			config: `{"interface": "eth9"}`,
			want:   `find interface "eth9" of the configuration`,
		},
		"a node address that no interface has": {
			prepare: func(h *host) { h.facts.NodeIPs[0] = netip.MustParseAddr("192.0.2.1") },
			want:    "no interface of this host has the node's address 192.0.2.1",
		},
		"a bad configuration": {
			config: `{"backend": "vxlna", "mtu": "big"}`,
			want:   `backend: "vxlna" is not a backend; did you mean "vxlan"?; mtu: "big" is not a whole number`,
		},
		"a bridge of another network": {
			prepare: func(h *host) {
				h.output("ip", "link", "add", "cni0", "type", "bridge")
				h.output("ip", "addr", "add", "10.88.0.1/16", "dev", "cni0")
			},
			want: "bridge cni0 exists with address 10.88.0.1/16, which is not of this cluster",
		},
		"an interface that has the bridge's name": {
			prepare: func(h *host) { h.output("ip", "link", "add", "cni0", "type", "veth") },
			want:    "interface cni0 exists and is a veth, not a bridge",
		},
		"a distribution without CNI executables": {
			prepare: func(h *host) { h.facts.Paths.CarriedCNIDir = "/nowhere" },
			want:    "install CNI executable bandwidth",
		},
		"a pod CIDR of another cluster": {
			prepare: func(h *host) { h.facts.ClusterCIDRs[0] = netip.MustParsePrefix("10.52.0.0/16") },
			want:    "pod CIDR 10.42.0.0/24 of node node-2 is outside the cluster CIDR 10.52.0.0/16",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLAN(t)
			l.api.put("node-2", "10.42.0.0/24")
			h := l.newHost(2, sdk.NFTables, test.config)
			if test.prepare != nil {
				test.prepare(h)
			}
			expectError(t, h.run().awaitEnd(t), test.want)
		})
	}
}
