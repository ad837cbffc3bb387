package nodeip

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// The pictures of the tests: nodes a, b and c with the addresses 10.0.0.1 to 10.0.0.3 and
// fd00::1 to fd00::3, on all of which the ports 80, 443 and 53/UDP are free.

func testNode(name string, last byte, change ...func(*node)) *node {
	n := &node{name: name, ready: true, holders: map[port]string{}, addresses: map[family][]netip.Addr{
		ipv4: {netip.AddrFrom4([4]byte{10, 0, 0, last})},
		ipv6: {netip.AddrFrom16([16]byte{0xfd, 15: last})},
	}}
	for _, p := range []port{{80, "TCP"}, {443, "TCP"}, {53, "UDP"}, {30500, "TCP"}} {
		n.holders[p] = ""
	}
	for _, c := range change {
		c(n)
	}
	return n
}

// testService is age seconds younger than the oldest one, and wants port 80.
func testService(name string, age int, change ...func(*service)) *service {
	s := &service{key: types.NamespacedName{Namespace: "default", Name: name}, uid: types.UID(name),
		created: time.Unix(1000+int64(age), 0), mine: true, families: []family{ipv4}, ports: []port{{80, "TCP"}},
		endpoints: map[family]map[string]bool{}}
	for _, c := range change {
		c(s)
	}
	return s
}

func wants(ports ...port) func(*service) { return func(s *service) { s.ports = ports } }

// given says that the Service has the addresses, for port 80.
func given(addrs ...string) func(*service) {
	return func(s *service) {
		for _, a := range addrs {
			s.current = append(s.current, ingress{addr: netip.MustParseAddr(a), ports: []port{{80, "TCP"}}})
		}
	}
}

func foreign(s *service) { s.mine = false }

func localTo(f family, nodes ...string) func(*service) {
	return func(s *service) {
		s.local = true
		s.endpoints[f] = map[string]bool{}
		for _, n := range nodes {
			s.endpoints[f][n] = true
		}
	}
}

func holds(p port, holder string) func(*node) { return func(n *node) { n.holders[p] = holder } }

func hostPortOf(pod, addr string, p port) func(*node) {
	return func(n *node) {
		n.hostPorts = append(n.hostPorts, hostPort{addr: netip.MustParseAddr(addr), port: p,
			pod: types.NamespacedName{Namespace: "default", Name: pod}})
	}
}

func TestAssign(t *testing.T) {
	http := port{80, "TCP"}
	abc := []*node{testNode("a", 1), testNode("b", 2), testNode("c", 3)}
	for name, tc := range map[string]struct {
		nodes    []*node
		services []*service
		// want has for each Service its addresses, and what an Event would say.
		want map[string]string
		says map[string]string
	}{
		"all nodes": {nodes: abc, services: []*service{testService("web", 0)},
			want: map[string]string{"web": "10.0.0.1, 10.0.0.2, 10.0.0.3"}},
		"only Ready nodes": {nodes: []*node{testNode("a", 1), testNode("b", 2, func(n *node) { n.ready = false })},
			services: []*service{testService("web", 0)}, want: map[string]string{"web": "10.0.0.1"}},
		"no Ready node": {nodes: []*node{testNode("a", 1, func(n *node) { n.ready = false })},
			services: []*service{testService("web", 0, given("10.0.0.1"))},
			want:     map[string]string{"web": ""}, says: map[string]string{"web": "no node is Ready and open to load balancers"}},
		"labelled nodes only, once there is one": {
			nodes:    []*node{testNode("a", 1), testNode("b", 2, func(n *node) { n.enabled = true })},
			services: []*service{testService("web", 0)}, want: map[string]string{"web": "10.0.0.2"}},
		"a labelled node that is not Ready limits, too": {
			nodes:    []*node{testNode("a", 1), testNode("b", 2, func(n *node) { n.enabled, n.ready = true, false })},
			services: []*service{testService("web", 0)}, want: map[string]string{"web": ""},
			says: map[string]string{"web": "no node is Ready"}},
		"a pool": {nodes: []*node{testNode("a", 1, func(n *node) { n.pool = "edge" }), testNode("b", 2)},
			services: []*service{testService("web", 0, func(s *service) { s.pool = "edge" }), testService("dns", 1, wants(port{53, "UDP"}))},
			want:     map[string]string{"web": "10.0.0.1", "dns": "10.0.0.1, 10.0.0.2"}},
		"a pool without nodes": {nodes: abc, services: []*service{testService("web", 0, func(s *service) { s.pool = "edge" })},
			want: map[string]string{"web": ""}, says: map[string]string{"web": `no Ready node is in the pool "edge"`}},
		"one Service a pool on one port": {
			nodes:    []*node{testNode("a", 1, func(n *node) { n.pool = "x" }), testNode("b", 2, func(n *node) { n.pool = "y" })},
			services: []*service{testService("one", 0, func(s *service) { s.pool = "x" }), testService("two", 1, func(s *service) { s.pool = "y" })},
			want:     map[string]string{"one": "10.0.0.1", "two": "10.0.0.2"}},
		"both families, in the Service's order": {nodes: abc[:2],
			services: []*service{testService("web", 0, func(s *service) { s.families = []family{ipv6, ipv4} })},
			want:     map[string]string{"web": "fd00::1, fd00::2, 10.0.0.1, 10.0.0.2"}},
		"a family that no node has": {nodes: []*node{testNode("a", 1, func(n *node) { delete(n.addresses, ipv6) })},
			services: []*service{testService("web", 0, func(s *service) { s.families = []family{ipv6} })},
			want:     map[string]string{"web": ""}, says: map[string]string{"web": "no node has an address of [IPv6]"}},
		"families don't conflict": {nodes: abc[:1],
			services: []*service{testService("four", 0), testService("six", 1, func(s *service) { s.families = []family{ipv6} })},
			want:     map[string]string{"four": "10.0.0.1", "six": "fd00::1"}},
		"protocols don't conflict": {nodes: []*node{testNode("a", 1, holds(port{80, "UDP"}, ""))},
			services: []*service{testService("tcp", 0), testService("udp", 1, wants(port{80, "UDP"}))},
			want:     map[string]string{"tcp": "10.0.0.1", "udp": "10.0.0.1"}},
		"nodes behind one address give it once": {nodes: []*node{testNode("a", 1), testNode("b", 1)},
			services: []*service{testService("web", 0)}, want: map[string]string{"web": "10.0.0.1"}},
		"Local: nodes with endpoints": {nodes: abc, services: []*service{testService("web", 0, localTo(ipv4, "b"))},
			want: map[string]string{"web": "10.0.0.2"}},
		"Local: endpoints of the same family": {nodes: abc, services: []*service{testService("web", 0, localTo(ipv6, "b"))},
			want: map[string]string{"web": ""}, says: map[string]string{"web": "no eligible node has a ready endpoint"}},

		"the older Service has the port": {nodes: abc[:1], services: []*service{testService("young", 1), testService("old", 0)},
			want: map[string]string{"old": "10.0.0.1", "young": ""},
			says: map[string]string{"young": "port 80/TCP is held by Service default/old on a (10.0.0.1); the Service gets"}},
		"even if the younger one has it now": {nodes: abc[:1], services: []*service{testService("young", 1, given("10.0.0.1")), testService("old", 0)},
			want: map[string]string{"old": "10.0.0.1", "young": ""}},
		"of one age, the first by name": {nodes: abc[:1], services: []*service{testService("b", 0), testService("a", 0)},
			want: map[string]string{"a": "10.0.0.1", "b": ""}},
		"one port of several": {nodes: abc[:1], services: []*service{testService("old", 0, wants(port{443, "TCP"})), testService("young", 1, wants(http, port{443, "TCP"}))},
			want: map[string]string{"old": "10.0.0.1", "young": ""}, says: map[string]string{"young": "port 443/TCP is held by Service default/old"}},
		"what a pending Service wants is free for others": {nodes: []*node{testNode("a", 1, holds(port{443, "TCP"}, "nginx (pid 7)"))},
			services: []*service{testService("old", 0, wants(http, port{443, "TCP"})), testService("young", 1)},
			want:     map[string]string{"old": "", "young": "10.0.0.1"}},
		"the nodes that are left": {nodes: abc, services: []*service{testService("old", 0, localTo(ipv4, "b")), testService("young", 1)},
			want: map[string]string{"old": "10.0.0.2", "young": "10.0.0.1, 10.0.0.3"},
			says: map[string]string{"young": "Service default/old on b (10.0.0.2)"}},

		"a process": {nodes: []*node{testNode("a", 1, holds(http, "nginx (pid 4711)")), abc[1]}, services: []*service{testService("web", 0)},
			want: map[string]string{"web": "10.0.0.2"}, says: map[string]string{"web": "held by process nginx (pid 4711) on a (10.0.0.1)"}},
		"a process that came later": {nodes: []*node{testNode("a", 1, holds(http, "nginx (pid 4711)"))},
			services: []*service{testService("web", 0, given("10.0.0.1"))}, want: map[string]string{"web": "10.0.0.1"}},
		"a process on a port that the Service has only since now": {nodes: []*node{testNode("a", 1, holds(port{443, "TCP"}, "nginx (pid 4711)"))},
			services: []*service{testService("web", 0, given("10.0.0.1"), wants(http, port{443, "TCP"}))},
			want:     map[string]string{"web": ""}, says: map[string]string{"web": "port 443/TCP is held by process nginx (pid 4711)"}},
		"a node that has not looked": {nodes: []*node{testNode("a", 1, func(n *node) { n.holders = nil })}, services: []*service{testService("web", 0)},
			want: map[string]string{"web": ""}, says: map[string]string{"web": "waiting for a to say who holds port 80/TCP there"}},
		"a node that has not looked since it started": {nodes: []*node{testNode("a", 1, func(n *node) { n.holders = nil })},
			services: []*service{testService("web", 0, given("10.0.0.1"))}, want: map[string]string{"web": "10.0.0.1"}},
		"a port of the node": {nodes: abc[:1], services: []*service{testService("ssh", 0, wants(port{22, "TCP"}), func(s *service) {
			s.current = []ingress{{addr: netip.MustParseAddr("10.0.0.1"), ports: []port{{22, "TCP"}}}}
		})},
			want: map[string]string{"ssh": ""}, says: map[string]string{"ssh": "port 22/TCP is held by the node itself (SSH) on a (10.0.0.1); choose another port"}},
		"a node port of another Service": {nodes: abc[:1], services: []*service{
			testService("web", 0, wants(port{30500, "TCP"})),
			testService("np", 1, foreign, func(s *service) { s.nodePorts = []port{{30500, "TCP"}} })},
			want: map[string]string{"web": ""}, says: map[string]string{"web": "Service default/np (as its node port)"}},
		"its own node port": {nodes: abc[:1], services: []*service{
			testService("web", 0, wants(port{30500, "TCP"}), func(s *service) { s.nodePorts = []port{{30500, "TCP"}} })},
			want: map[string]string{"web": "10.0.0.1"}},
		"an external IP of another Service": {nodes: abc[:2], services: []*service{testService("web", 1),
			testService("ext", 2, foreign, func(s *service) { s.externalIPs = []netip.Addr{netip.MustParseAddr("10.0.0.2")} })},
			want: map[string]string{"web": "10.0.0.1"}, says: map[string]string{"web": "Service default/ext (as its external IP) on b"}},
		"its own external IP": {nodes: abc[:1], services: []*service{
			testService("web", 1, func(s *service) { s.externalIPs = []netip.Addr{netip.MustParseAddr("10.0.0.1")} })},
			want: map[string]string{"web": "10.0.0.1"}},
		"a pod's host port": {nodes: []*node{testNode("a", 1, hostPortOf("p", "0.0.0.0", http)), abc[1]}, services: []*service{testService("web", 0)},
			want: map[string]string{"web": "10.0.0.2"}, says: map[string]string{"web": "pod default/p (as its host port) on a"}},
		"a pod's host port on another address": {nodes: []*node{testNode("a", 1, hostPortOf("p", "127.0.0.1", http))}, services: []*service{testService("web", 0)},
			want: map[string]string{"web": "10.0.0.1"}},

		"abandoned": {nodes: abc, services: []*service{testService("web", 0, foreign, given("10.0.0.1"), func(s *service) { s.abandoned = true })},
			want: map[string]string{"web": ""}},
		"another's": {nodes: abc, services: []*service{testService("web", 0, foreign, given("10.0.0.9"))}, want: map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]string{}
			for _, v := range assign(snapshot{services: tc.services, nodes: tc.nodes}, reservedPorts(config{})) {
				got[v.service.key.Name] = addresses(v.ingress)
				_, text, _ := complaint(v)
				if want := tc.says[v.service.key.Name]; (want == "" && text != "" && v.service.mine && len(v.ingress) == 0 && tc.says != nil) || !strings.Contains(text, want) {
					t.Errorf("%s: says %q, want %q", v.service.key.Name, text, want)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// What was decided once is decided again when it has become the status, whatever the order
// in which the picture is painted: nothing flaps.
func TestAssignIsStable(t *testing.T) {
	nodes := []*node{testNode("a", 1, holds(port{80, "TCP"}, "nginx (pid 7)")), testNode("b", 2), testNode("c", 3)}
	services := []*service{
		testService("one", 0, localTo(ipv4, "a", "b")), testService("two", 1),
		testService("three", 1, wants(port{443, "TCP"}, port{80, "TCP"})), testService("four", 2, wants(port{53, "UDP"})),
	}
	first := assign(snapshot{services: services, nodes: nodes}, fixedPorts)
	for _, v := range first {
		v.service.current = v.ingress
	}
	backwards := []*service{services[3], services[2], services[1], services[0]}
	second := assign(snapshot{services: backwards, nodes: nodes}, fixedPorts)
	for i := range first {
		if first[i].service != second[i].service || addresses(first[i].ingress) != addresses(second[i].ingress) {
			t.Errorf("%s: first %s, then %s", first[i].service.key, addresses(first[i].ingress), addresses(second[i].ingress))
		}
	}
}

func TestMessagesNameFewNodes(t *testing.T) {
	var taken []blocker
	for n := range 9 {
		taken = append(taken, blocker{node: fmt.Sprint("n", n), addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), port: port{80, "TCP"}, holder: "Service x/y"})
	}
	if got := describe(taken); !strings.Contains(got, "n4 (10.0.0.4) and 4 more; ") || strings.Contains(got, "n5") {
		t.Error(got)
	}
}
