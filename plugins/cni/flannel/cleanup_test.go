package flannel

import (
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

// portmap and bandwidth of the conflist do their work with the node's packet filter.
func TestHostPortsAndBandwidth(t *testing.T) {
	for _, filter := range []sdk.PacketFilter{sdk.NFTables, sdk.IPTables} {
		t.Run(string(filter), func(t *testing.T) {
			l := newLAN(t)
			l.api.put("node-2", "10.42.0.0/24")
			h := l.newHost(2, filter, ``)
			c := h.up()
			arguments := map[string]any{
				"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
				"bandwidth":    map[string]any{"egressRate": 8_000_000, "egressBurst": 800_000},
			}
			p := h.newPodWith("web", arguments)
			other := h.newPod("other")
			serveEcho(t, p.namespace, 80)
			expectReach(t, "", "192.168.77.2:8080", "192.168.77.1")
			seen := map[sdk.PacketFilter]string{sdk.NFTables: other.addresses[0], sdk.IPTables: "10.42.0.1"}
			expectReach(t, other.namespace, "192.168.77.2:8080", seen[filter]) // portmap's iptables masquerade this
			if qdiscs := h.output("tc", "qdisc"); !strings.Contains(qdiscs, "tbf") {
				t.Errorf("no bandwidth limit:\n%s", qdiscs)
			}
			c.stop(t)
			if filter == sdk.NFTables { // what another network's pods have stays
				h.output("nft", "add rule ip cni_hostport hostports tcp dport 8081 dnat to 10.88.0.2:80")
			} else {
				h.output("iptables", "-t", "nat", "-N", "CNI-DN-other")
				h.output("iptables", "-t", "nat", "-A", "CNI-DN-other", "-p", "tcp", "-j", "DNAT", "--to-destination", "10.88.0.2:80")
				h.output("iptables", "-t", "nat", "-A", "CNI-HOSTPORT-DNAT", "-j", "CNI-DN-other")
			}
			h.cleanup()
			if rules := h.output("nft", "list", "ruleset"); !strings.Contains(rules, "10.88.0.2:80") {
				t.Errorf("Cleanup took the host port of another network's pod away:\n%s", rules)
			}
			if filter == sdk.NFTables {
				h.output("nft", "flush chain ip cni_hostport hostports")
			} else {
				h.output("iptables", "-t", "nat", "-F", "CNI-HOSTPORT-DNAT")
				h.output("iptables", "-t", "nat", "-F", "CNI-DN-other")
				h.output("iptables", "-t", "nat", "-X", "CNI-DN-other")
			}
			// The runtime can still remove pods, and what is left of them goes with the
			// next Cleanup.
			p.remove()
			other.remove()
			h.up().kill(t, syscall.SIGKILL)
			web := h.newPodWith("web", arguments)
			h.cleanup()
			if rules := h.output("nft", "list", "ruleset"); regexp.MustCompile("(?i)cni.hostport|flannel").MatchString(rules) {
				t.Errorf("left by Cleanup:\n%s", rules)
			}
			web.remove()
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
