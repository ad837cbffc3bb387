package flannel

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/k3m-io/k3m/sdk"
)

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

// mac is the MAC address of an interface.
func (h *host) mac(name string) (mac string) {
	h.do(func() {
		if link, err := netlink.LinkByName(name); err == nil {
			mac = link.Attrs().HardwareAddr.String()
		}
	})
	return mac
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
	for key, want := range map[string]string{
		annotationManaged: "true", annotationBackendType: "vxlan", annotationPublicIP: "192.168.77.3",
		annotationBackendData: fmt.Sprintf(`{"VNI":1,"VtepMAC":"%s"}`, two.mac("flannel.1")),
	} {
		if have := l.api.annotations("node-3")[key]; have != want {
			t.Errorf("annotation %s is %q, want %q", key, have, want)
		}
	}

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
