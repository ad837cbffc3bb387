package flannel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

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
		t.Run(name, func(t *testing.T) {
			l := newLAN(t)
			l.api.put("node-2", "10.42.0.0/24")
			l.api.put("node-3", "10.42.1.0/24")
			one, two := l.newHost(2, test.filter, test.config), l.newHost(3, test.filter, test.config)
			c1, c2 := one.up(), two.up()
			a, b := one.newPod("a"), two.newPod("b")
			if a.addresses[0] != "10.42.0.2" || b.addresses[0] != "10.42.1.2" {
				t.Errorf("pods have the addresses %v and %v", a.addresses, b.addresses)
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
		})
	}
}

// A client asks a pod all the time, from another node and from the pod's own, while the
// component dies and comes back in all the ways that it may.
func TestRestartsDisturbNoTraffic(t *testing.T) {
	for _, filter := range []sdk.PacketFilter{sdk.NFTables, sdk.IPTables} {
		t.Run(string(filter), func(t *testing.T) {
			l := newLAN(t)
			l.api.put("node-2", "10.42.0.0/24")
			l.api.put("node-3", "10.42.1.0/24")
			one, two := l.newHost(2, filter, ``), l.newHost(3, filter, ``)
			component := one.up()
			two.up()
			a, near, far := one.newPod("a"), one.newPod("near"), two.newPod("far")
			if filter == sdk.IPTables {
				// As docker sets it: without flannel's rules nothing is forwarded.
				one.output("iptables", "-P", "FORWARD", "DROP")
			}
			serveEcho(t, a.namespace, 80)
			serveEcho(t, "", 8000)
			expectReach(t, near.namespace, "10.42.0.2:80", near.addresses[0])
			expectReach(t, far.namespace, "10.42.0.2:80", far.addresses[0])
			before := fingerprint(one)

			fromFar := traffic(t, far.namespace, "10.42.0.2:80")
			fromNear := traffic(t, near.namespace, "10.42.0.2:80", "192.168.77.1:8000")
			for range 3 {
				for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGQUIT} {
					component.kill(t, signal)
					component = one.up()
				}
				component.stop(t)
				component = one.up()
			}
			for name, stop := range map[string]func() (int, []error){"far": fromFar, "near": fromNear} {
				asked, failed := stop()
				t.Logf("%s: asked %d times", name, asked)
				if asked == 0 || len(failed) > 0 {
					t.Errorf("%s: asked %d times, failed: %v", name, asked, errors.Join(failed...))
				}
			}
			if filter == sdk.IPTables {
				// TCP sends again what gets lost; the counter of the policy forgets nothing.
				if chain := one.output("iptables", "-v", "-L", "FORWARD"); !strings.Contains(chain, "(policy DROP 0 packets") {
					t.Errorf("packets were dropped:\n%s", chain)
				}
			}
			if after := fingerprint(one); after != before {
				t.Errorf("restarts changed the host:\nbefore:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// links are the host's interfaces, without what follows the state of a cable in the
// kernel's own time.
func (h *host) links() string {
	return regexp.MustCompile(`<.*?>|state [A-Z]+`).ReplaceAllString(h.output("ip", "-o", "link"), "")
}

// fingerprint is all that the component makes on a host.
func fingerprint(h *host) string {
	h.t.Helper()
	text := h.links() + h.output("ip", "-o", "-4", "addr") + h.output("ip", "-o", "-6", "addr", "show", "scope", "global") + h.output("ip", "route") + h.output("ip", "-6", "route", "show", "root", "fd42::/56") +
		h.output("ip", "neigh", "show", "nud", "permanent") + h.output("bridge", "fdb", "show", "dev", "flannel.1")
	if h.facts.PacketFilter == sdk.NFTables {
		return text + h.output("nft", "--stateless", "list", "ruleset")
	}
	return text + h.output("iptables", "-S") + h.output("iptables", "-t", "nat", "-S")
}

func TestCleanupLeavesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		filter sdk.PacketFilter
		config string
	}{
		"vxlan with nftables":   {sdk.NFTables, `{"backend": "vxlan"}`},
		"host-gw with iptables": {sdk.IPTables, `{"backend": "host-gw"}`},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLAN(t)
			l.api.put("node-2", "10.42.0.0/24")
			l.api.put("node-3", "10.42.1.0/24")
			one, two := l.newHost(2, test.filter, test.config), l.newHost(3, test.filter, test.config)
			// What others have there stays.
			mine := filepath.Join(one.facts.Paths.CNIBinDir, "mine")
			must(t, os.MkdirAll(filepath.Dir(mine), 0o755))
			must(t, os.WriteFile(mine, []byte("#!/bin/sh\n"), 0o755))
			one.output("ip", "route", "add", "10.99.0.0/24", "via", "192.168.77.1")
			look := func() string {
				return one.links() + one.output("ip", "route") + one.output("nft", "--stateless", "list", "ruleset") +
					one.output("iptables-legacy", "-S") + one.output("find", filepath.Join(one.dir, "agent"), "-type", "f")
			}
			if test.filter == sdk.IPTables { // whose tables and built-in chains stay
				for _, table := range []string{"nat", "filter"} {
					for _, tool := range []string{"iptables", "ip6tables"} {
						one.output(tool, "-t", table, "-N", "X")
						one.output(tool, "-t", table, "-X", "X")
					}
				}
				one.output("iptables", "-t", "nat", "-A", "POSTROUTING", "-j", "RETURN")
				one.output("iptables", "-t", "filter", "-A", "FORWARD", "-j", "RETURN")
			}
			before := look()
			one.cleanup() // of nothing
			if after := look(); after != before {
				t.Errorf("cleaning up nothing changed the host:\n%s\nafter:\n%s", before, after)
			}

			c1, c2 := one.up(), two.up()
			p := one.newPod("a")
			expectRoute(t, one, "10.42.1.0/24", true)
			p.remove()
			c1.stop(t)
			c2.stop(t)
			one.cleanup()
			if after := look(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			expectRoute(t, one, "10.42.1.0/24", false)
			one.cleanup() // again
		})
	}
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

// portmap and bandwidth of the conflist do their work with the node's packet filter.
func TestHostPortsAndBandwidth(t *testing.T) {
	for _, filter := range []sdk.PacketFilter{sdk.NFTables, sdk.IPTables} {
		t.Run(string(filter), func(t *testing.T) {
			l := newLAN(t)
			l.api.put("node-2", "10.42.0.0/24")
			h := l.newHost(2, filter, ``)
			c := h.up()
			p := h.newPodWith("web", map[string]any{
				"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
				"bandwidth":    map[string]any{"egressRate": 8_000_000, "egressBurst": 800_000},
			})
			other := h.newPod("other")
			serveEcho(t, p.namespace, 80)
			expectReach(t, "", "192.168.77.2:8080", "192.168.77.1")
			seen := map[sdk.PacketFilter]string{sdk.NFTables: other.addresses[0], sdk.IPTables: "10.42.0.1"}
			expectReach(t, other.namespace, "192.168.77.2:8080", seen[filter]) // portmap's iptables masquerade this
			if qdiscs := h.output("tc", "qdisc"); !strings.Contains(qdiscs, "tbf") {
				t.Errorf("no bandwidth limit:\n%s", qdiscs)
			}
			c.stop(t)
			h.cleanup()
			if rules := h.output("nft", "list", "ruleset"); !regexp.MustCompile("(?i)cni.hostport").MatchString(rules) {
				t.Errorf("Cleanup took the host port of a pod away:\n%s", rules)
			}
			p.remove()
			other.remove()
			h.cleanup()
			if rules := h.output("nft", "list", "ruleset"); regexp.MustCompile("(?i)cni.hostport|flannel").MatchString(rules) {
				t.Errorf("left by Cleanup:\n%s", rules)
			}
		})
	}
}

func TestKilledHalfWay(t *testing.T) {
	for _, filter := range []sdk.PacketFilter{sdk.NFTables, sdk.IPTables} {
		t.Run(string(filter), func(t *testing.T) {
			l := newLAN(t)
			l.api.put("node-2", "10.42.0.0/24")
			h := l.newHost(2, filter, ``)
			h.up().kill(t, syscall.SIGKILL)
			before := fingerprint(h)
			for delay := time.Duration(0); delay < 60*time.Millisecond; delay += 12 * time.Millisecond {
				h.cleanup()
				c := h.run()
				time.Sleep(delay)
				c.kill(t, syscall.SIGKILL)
				h.up().kill(t, syscall.SIGKILL)
				if after := fingerprint(h); normal(after) != normal(before) {
					t.Fatalf("killed after %s; before:\n%s\nafter:\n%s", delay, before, after)
				}
				h.run().kill(t, syscall.SIGKILL)
				h.cleanup()
				if links := h.output("ip", "-o", "link"); strings.Contains(links, "cni0") || strings.Contains(links, "flannel") {
					t.Fatalf("killed after %s; left by Cleanup:\n%s", delay, links)
				}
			}
		})
	}
}

// normal takes out what differs between two devices of the same make.
func normal(fingerprint string) string {
	same := regexp.MustCompile(`([0-9a-f]{2}:){5}[0-9a-f]{2}|(?m)^[0-9]+: `).ReplaceAllString(fingerprint, "")
	lines := strings.Split(same, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestNodesComeAndGo(t *testing.T) {
	l := newLAN(t)
	l.api.put("node-2", "10.42.0.0/24")
	one, two := l.newHost(2, sdk.NFTables, ``), l.newHost(3, sdk.NFTables, ``)
	c1 := one.up()

	// A node that the component is started on before it has a pod CIDR.
	l.api.put("node-3")
	c2 := two.run()
	select {
	case r := <-c2.reports:
		t.Errorf("reported %#v before the node had a pod CIDR", r)
	case <-time.After(300 * time.Millisecond):
	}
	l.api.put("node-3", "10.42.1.0/24")
	given := time.Now()
	if gateways := c2.awaitReady(t); len(gateways) != 1 || gateways[0].String() != "10.42.1.1" {
		t.Errorf("gateways: %v", gateways)
	}
	t.Logf("ready %s after the pod CIDR came", time.Since(given).Round(time.Millisecond))
	expectRoute(t, one, "10.42.1.0/24 via 10.42.1.0 dev flannel.1", true)

	l.api.remove("node-3")
	expectRoute(t, one, "10.42.1.0/24", false)

	// A Node made anew has lost its annotations; they are written again.
	l.api.put("node-3", "10.42.1.0/24")
	expectRoute(t, one, "10.42.1.0/24", true)

	// A node that goes while nobody looks.
	c1.kill(t, syscall.SIGKILL)
	l.api.remove("node-3")
	c1 = one.up()
	expectRoute(t, one, "10.42.1.0/24", false)

	// Another pod CIDR ends Run; the next one makes the network anew.
	l.api.put("node-2", "10.42.5.0/24")
	expectError(t, c1.awaitEnd(t), "pod CIDR of node node-2 changed from 10.42.0.0/24 to 10.42.5.0/24")
	one.up()
	if addr := one.output("ip", "-o", "-4", "addr", "show", "dev", "cni0"); !strings.Contains(addr, "10.42.5.1/24") || strings.Contains(addr, "10.42.0.1") {
		t.Errorf("cni0 has the addresses %s", addr)
	}
}

// A change of backend and packet filter takes the old ones' traces away.
func TestAnotherBackendAndFilter(t *testing.T) {
	l := newLAN(t)
	l.api.put("node-2", "10.42.0.0/24")
	l.api.put("node-3", "10.42.1.0/24")
	one, two := l.newHost(2, sdk.IPTables, ``), l.newHost(3, sdk.IPTables, ``)
	hosts := []*host{one, two}
	runs := []*component{one.up(), two.up()}
	expectRoute(t, one, "10.42.1.0/24 via 10.42.1.0 dev flannel.1", true)
	a, b := one.newPod("a"), two.newPod("b")
	serveEcho(t, b.namespace, 80)
	for _, step := range []struct {
		config, route string
		filter        sdk.PacketFilter
		rules, none   string
	}{
		{`{"backend": "host-gw"}`, "10.42.1.0/24 via 192.168.77.3 dev eth0", sdk.NFTables, "flannel-ipv4", "FLANNEL"},
		{`{"vni": 5}`, "10.42.1.0/24 via 10.42.1.0 dev flannel.5", sdk.IPTables, "FLANNEL", "flannel-ipv4"},
		{`{"vni": 6, "mtu": 1300}`, "10.42.1.0/24 via 10.42.1.0 dev flannel.6", sdk.NFTables, "flannel-ipv4", "FLANNEL"},
	} {
		for i, h := range hosts {
			runs[i].stop(t)
			h.config, h.facts.PacketFilter = step.config, step.filter
			runs[i] = h.up()
		}
		expectRoute(t, one, step.route, true)
		expectReach(t, a.namespace, "10.42.1.2:80", "10.42.0.2")
		if rules := one.output("nft", "list", "ruleset"); !strings.Contains(rules, step.rules) || strings.Contains(rules, step.none) {
			t.Errorf("%s: want %s and no %s:\n%s", step.config, step.rules, step.none, rules)
		}
		eventually(t, "no device of another backend", func() bool {
			want := 0
			if strings.Contains(step.route, "flannel") {
				want = 1
			}
			return strings.Count(one.output("ip", "-br", "link"), "flannel") == want
		})
	}
	if link := one.output("ip", "link", "show", "flannel.6"); !strings.Contains(link, "mtu 1300") {
		t.Errorf("the MTU is another: %s", link)
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

func TestSomeoneElseMeddles(t *testing.T) {
	t.Run("the ruleset is emptied", func(t *testing.T) {
		l := newLAN(t)
		l.api.put("node-2", "10.42.0.0/24")
		h := l.newHost(2, sdk.NFTables, ``)
		h.up()
		rules := func() string { return h.output("nft", "--stateless", "list", "ruleset") }
		before := rules()
		for range 3 {
			h.output("nft", "flush", "ruleset")
			eventually(t, "the rules are back", func() bool { return rules() == before })
		}
		h.output("nft", "flush", "chain", "ip", "flannel-ipv4", "postrtg")
		eventually(t, "the rules are back", func() bool { return rules() == before })
	})
	for _, link := range []string{"cni0", "flannel.1"} {
		t.Run(link+" is deleted", func(t *testing.T) {
			l := newLAN(t)
			l.api.put("node-2", "10.42.0.0/24")
			h := l.newHost(2, sdk.NFTables, ``)
			c := h.up()
			h.output("ip", "link", "delete", link)
			expectError(t, c.awaitEnd(t), "interface "+link+" is gone, the pod network has to be made anew")
			h.up()
			h.output("ip", "link", "show", link)
		})
	}
	t.Run("the API refuses the credentials", func(t *testing.T) {
		l := newLAN(t)
		l.api.put("node-2", "10.42.0.0/24")
		c := l.newHost(2, sdk.NFTables, ``).up()
		l.api.refuse()
		expectError(t, c.awaitEnd(t), "the API refuses the component's credentials")
	})
}

// What a user or the host may have wrong ends Run with one sentence.
func TestRunRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		config  string
		prepare func(*host)
		want    string
	}{
		"a kernel without wireguard": {
			config: `{"backend": "wireguard"}`,
			want:   "this kernel has no wireguard (module wireguard): load or install it, or choose another backend (vxlan, host-gw, wireguard)",
		},
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
