package nftables

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// scene is a node with pods in two namespaces, and all else there is to talk to.
type scene struct {
	*node
	web, client, other, stranger *testPod // stranger is a client of the other namespace
}

func newScene(t testing.TB) *scene {
	n := newNode(t)
	n.namespaces(map[string]string{"a": "team=a", "b": "team=b", "kube-system": ""})
	s := &scene{node: n}
	s.web = n.newPod(10, "a", "web", "app=web,tier=back")
	s.client = n.newPod(11, "a", "client", "app=client")
	s.other = n.newPod(12, "a", "other", "app=other")
	s.stranger = n.newPod(20, "b", "stranger", "app=client")
	n.remotePod("a", "far-client", "app=client", "10.42.1.5", "fd42:0:0:1::5")
	n.remotePod("b", "far-other", "app=other", "10.42.1.6")
	for _, addr := range []string{"192.168.88.2", "172.16.1.1", "172.16.2.1", "10.42.1.5", "10.42.1.6", "10.42.1.1", "10.42.1.0", "fd42:0:0:1::5"} {
		n.elsewhere.addrs = append(n.elsewhere.addrs, netip.MustParseAddr(addr))
	}
	n.elsewhere.serve()
	n.self.serve()
	n.api.put(componentsObject(nodeName, "10.42.0.1", true), componentsObject(otherNode, "10.42.1.1", true))
	return s
}

// componentsObject is what a node says of its DNS server, on UDP 53 and TCP 81, and of an
// ingress controller, on TCP 8080.
func componentsObject(name, gateway string, serving bool) *nodeComponents {
	n := &nodeComponents{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.PodGateways, n.Status.NodeIPs = []string{gateway}, []string{"192.168.88.2"}
	dns := nodestatus.ComponentState{ID: "dns.coredns", Labels: map[string]string{"k8s-app": "kube-dns"}}
	web := nodestatus.ComponentState{ID: "ingress.traefik", Labels: map[string]string{"app": "traefik"}}
	if serving {
		dns.Endpoints = []nodestatus.Endpoint{{Service: "kube-system/kube-dns", Addresses: []string{gateway}, Ports: []nodestatus.Port{
			{Name: "dns", Protocol: "UDP", Port: 53}, {Name: "metrics", Protocol: "TCP", Port: 81}}}}
		web.Endpoints = []nodestatus.Endpoint{{Service: "kube-system/traefik", Addresses: []string{gateway}, Ports: []nodestatus.Port{
			{Name: "web", Protocol: "TCP", Port: 8080}}}}
	}
	n.Status.Components = []nodestatus.ComponentState{dns, web}
	return n
}

const (
	web4      = "10.42.0.10"
	web6      = "[fd42::10]"
	client4   = "10.42.0.11"
	other4    = "10.42.0.12"
	stranger4 = "10.42.0.20"
)

// policyCase says what policies in namespace a do.
type policyCase struct {
	policies []string
	probes   func(s *scene) []probe
}

var policyCases = map[string]policyCase{
	"deny all ingress": {
		policies: []string{"podSelector: {}"},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "tcp:" + web4 + ":80", false},
				{s.client.place, "", "tcp:" + web6 + ":80", false},
				{s.client.place, "", "udp:" + web4 + ":53", false},
				{s.stranger.place, "", "tcp:" + web4 + ":80", false},
				{s.elsewhere, "", "tcp:" + web4 + ":80", false},
				{s.self, "", "tcp:" + web4 + ":80", true}, // the node's own: the kubelet's probes
				{s.web.place, "", "tcp:" + stranger4 + ":80", true},
				{s.web.place, "", "tcp:192.168.88.2:80", true},
				{s.web.place, "", "tcp:10.42.0.1:80", true},
				{s.web.place, "", "tcp:" + web4 + ":80", true},
			}
		},
	},
	"deny all egress": {
		policies: []string{"{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}"},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "tcp:" + web4 + ":80", false},
				{s.client.place, "", "tcp:" + web6 + ":80", false},
				{s.client.place, "", "tcp:192.168.88.2:80", false},
				{s.client.place, "", "tcp:10.42.1.5:80", false},
				{s.client.place, "", "tcp:10.42.0.1:80", false}, // the node itself
				{s.client.place, "", "udp:10.42.0.1:53", false},
				{s.other.place, "", "tcp:" + client4 + ":80", true}, // the answers pass
				{s.other.place, "", "tcp:" + web4 + ":80", true},
				{s.stranger.place, "", "tcp:" + web4 + ":80", true},
			}
		},
	},
	"allow all ingress beside deny all": {
		policies: []string{"podSelector: {}", "{podSelector: {matchLabels: {app: web}}, ingress: [{}]}"},
		probes: func(s *scene) []probe {
			return []probe{
				{s.elsewhere, "", "tcp:" + web4 + ":80", true},
				{s.client.place, "", "udp:" + web6 + ":5353", true},
				{s.client.place, "", "tcp:" + other4 + ":80", false},
			}
		},
	},
	"pod selector": {
		policies: []string{"{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}"},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "tcp:" + web4 + ":80", true},
				{s.client.place, "", "tcp:" + web6 + ":80", true},
				{s.client.place, "", "udp:" + web4 + ":53", true},
				{s.elsewhere, "10.42.1.5", "tcp:" + web4 + ":80", true}, // a pod of another node
				{s.elsewhere, "fd42:0:0:1::5", "tcp:" + web6 + ":80", true},
				{s.elsewhere, "10.42.1.6", "tcp:" + web4 + ":80", false},
				{s.other.place, "", "tcp:" + web4 + ":80", false},
				{s.other.place, "", "tcp:" + web6 + ":80", false},
				{s.stranger.place, "", "tcp:" + web4 + ":80", false},
				{s.other.place, "", "tcp:" + client4 + ":80", true},
			}
		},
	},
	"namespace selector": {
		policies: []string{"{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}]}]}"},
		probes: func(s *scene) []probe {
			return []probe{
				{s.stranger.place, "", "tcp:" + web4 + ":80", true},
				{s.elsewhere, "10.42.1.6", "tcp:" + web4 + ":80", true},
				{s.client.place, "", "tcp:" + web4 + ":80", false},
			}
		},
	},
	"namespace and pod selector, with expressions": {
		policies: []string{`{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, api]}]}, ingress: [{from: [{
			namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [c]}]},
			podSelector: {matchExpressions: [{key: app, operator: Exists}, {key: tier, operator: DoesNotExist}]}}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.stranger.place, "", "tcp:" + web4 + ":80", true},
				{s.client.place, "", "tcp:" + web4 + ":80", true},
				{s.elsewhere, "", "tcp:" + web4 + ":80", false},
			}
		},
	},
	"ports, numbers and ranges": {
		policies: []string{`{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}, {port: 80, endPort: 81}, {protocol: UDP, port: 5000, endPort: 6000}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "tcp:" + web4 + ":80", true},
				{s.client.place, "", "tcp:" + web6 + ":81", true},
				{s.client.place, "", "tcp:" + web4 + ":8080", false},
				{s.client.place, "", "udp:" + web4 + ":5353", true},
				{s.client.place, "", "udp:" + web6 + ":53", false},
				{s.elsewhere, "", "tcp:" + web4 + ":80", true},
			}
		},
	},
	"a protocol without a port": {
		policies: []string{`{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{protocol: UDP}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "udp:" + web4 + ":53", true},
				{s.client.place, "", "tcp:" + web4 + ":80", false},
			}
		},
	},
	"named ports on the way in": {
		policies: []string{`{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: web}, {port: dns, protocol: UDP}, {port: nowhere}],
			from: [{podSelector: {matchLabels: {app: client}}}, {ipBlock: {cidr: 192.168.88.0/24}}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "tcp:" + web4 + ":80", true},
				{s.client.place, "", "tcp:" + web6 + ":80", true},
				{s.client.place, "", "udp:" + web4 + ":53", true},
				{s.client.place, "", "tcp:" + web4 + ":81", false},
				{s.elsewhere, "192.168.88.2", "tcp:" + web4 + ":80", true},
				{s.elsewhere, "192.168.88.2", "tcp:" + web4 + ":81", false},
				{s.other.place, "", "tcp:" + web4 + ":80", false},
			}
		},
	},
	"named ports on the way out": {
		policies: []string{`{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [
			{ports: [{port: web}], to: [{podSelector: {matchLabels: {app: web}}}]}, {ports: [{port: dns, protocol: UDP}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "tcp:" + web4 + ":80", true},
				{s.client.place, "", "tcp:" + web6 + ":80", true},
				{s.client.place, "", "tcp:" + web4 + ":81", false},
				{s.client.place, "", "tcp:" + other4 + ":80", false},
				{s.client.place, "", "udp:" + other4 + ":53", true},
				{s.client.place, "", "udp:10.42.0.1:53", true}, // a component's port has a name too
				{s.client.place, "", "udp:10.42.0.1:5353", false},
			}
		},
	},
	"address blocks with exceptions": {
		policies: []string{`{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 172.16.0.0/16,
			except: [172.16.2.0/24, 172.16.2.1/32]}}, {ipBlock: {cidr: 10.42.0.11/32}}, {ipBlock: {cidr: 10.42.0.0/28}}, {ipBlock: {cidr: "fd42::/64", except: ["fd42::c/126"]}}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.elsewhere, "172.16.1.1", "tcp:" + web4 + ":80", true},
				{s.elsewhere, "172.16.2.1", "tcp:" + web4 + ":80", false},
				{s.elsewhere, "192.168.88.2", "tcp:" + web4 + ":80", false},
				{s.client.place, "", "tcp:" + web4 + ":80", true},
				{s.client.place, "", "tcp:" + web6 + ":80", true},
				{s.stranger.place, "", "tcp:" + web4 + ":80", false},
				{s.stranger.place, "", "tcp:" + web6 + ":80", true},
			}
		},
	},
	"everywhere but": {
		policies: []string{`{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.42.0.0/16, 172.16.0.0/16]}}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "tcp:192.168.88.2:80", true},
				{s.client.place, "", "tcp:172.16.1.1:80", false},
				{s.client.place, "", "tcp:10.42.0.1:80", false},
				{s.client.place, "", "tcp:" + web4 + ":80", false},
				{s.client.place, "", "tcp:" + web6 + ":80", false},
			}
		},
	},
	"both ends have to allow": {
		policies: []string{
			"{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}, {port: 81}]}]}",
			"{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 81}, {port: 8080}]}]}",
		},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "tcp:" + web4 + ":80", false},
				{s.client.place, "", "tcp:" + web4 + ":81", true},
				{s.client.place, "", "tcp:" + web4 + ":8080", false},
				{s.other.place, "", "tcp:" + web4 + ":80", true},
			}
		},
	},
	"components as where to": {
		policies: []string{`{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{
			namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "udp:10.42.0.1:53", true},
				{s.client.place, "", "tcp:10.42.0.1:81", true},
				{s.client.place, "", "udp:10.42.1.1:53", true}, // another node's
				{s.client.place, "", "tcp:10.42.0.1:80", false},
				{s.client.place, "", "tcp:10.42.0.1:8080", false}, // another component's
				{s.client.place, "", "udp:10.42.0.1:5353", false},
				{s.client.place, "", "tcp:" + web4 + ":81", false},
			}
		},
	},
	"components as where to, with a port": {
		policies: []string{`{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}], to: [{
			namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "udp:10.42.0.1:53", true},
				{s.client.place, "", "tcp:10.42.0.1:81", false},
			}
		},
	},
	"components as where from, whose addresses whoever comes by a NodePort of another node has too": {
		policies: []string{`{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels:
			{kubernetes.io/metadata.name: kube-system}}}, {namespaceSelector: {}, podSelector: {matchLabels: {app: traefik}}}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.elsewhere, "10.42.1.1", "tcp:" + web4 + ":80", false},
				{s.elsewhere, "10.42.1.0", "tcp:" + web4 + ":80", false},
				{s.elsewhere, "192.168.88.2", "tcp:" + web4 + ":80", false},
				{s.client.place, "", "tcp:" + web4 + ":80", false},
			}
		},
	},
	"SCTP": {
		policies: []string{`{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{protocol: SCTP, port: 7000}, {protocol: SCTP, port: web}]}]}`},
		probes: func(s *scene) []probe {
			return []probe{
				{s.client.place, "", "sctp:" + web4 + ":7000", true},
				{s.other.place, "", "sctp:" + web4 + ":7001", false},
				{s.client.place, "", "tcp:" + web4 + ":80", false},
			}
		},
	},
}

func TestPolicies(t *testing.T) {
	s := newScene(t)
	s.run()
	for name, c := range policyCases {
		t.Run(name, func(t *testing.T) {
			must(t, netlink.ConntrackTableFlush(netlink.ConntrackTable)) // nothing is established
			for i, spec := range c.policies {
				s.api.put(policyObject("a", fmt.Sprintf("p%d", i), spec))
			}
			defer func() {
				for i := range c.policies {
					s.api.remove(policyObject("a", fmt.Sprintf("p%d", i), "{podSelector: {}}"))
				}
			}()
			expect(t, c.probes(s)...)
		})
	}
	// Without policies all is open again.
	expect(t, probe{s.client.place, "", "tcp:" + web4 + ":8080", true}, probe{s.elsewhere, "", "udp:" + web4 + ":53", true})
}
