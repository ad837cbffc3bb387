package nftables

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// trusting is an engine of a cluster of two nodes, with the servers' word of the components.
func trusting() *engine {
	e := newEngine(nodeName, []family{ipv4, ipv6}, netip.MustParsePrefix("10.42.0.0/24"), netip.MustParsePrefix("fd42::/64"))
	e.setHost(nodeName, hostOf(nodeObject(nodeName, "192.168.88.1", "10.42.0.0/24", "fd42::/64")))
	e.setHost(otherNode, hostOf(nodeObject(otherNode, "192.168.88.2", "10.42.1.0/24", "fd42:0:0:1::/64")))
	e.setNamespace("kube-system", nil, true)
	for _, c := range componentObjects() {
		e.setLabels(c.Name, c.Spec.Labels)
	}
	return e
}

// elementsOf are the elements of all sets of a kind.
func elementsOf(e *engine, kind setKind) (all []string) {
	e.judge()
	for _, s := range e.sets {
		if s.kind == kind {
			all = append(all, slices.Collect(maps.Keys(s.want))...)
		}
	}
	slices.Sort(all)
	return all
}

// TestPodsOfOtherNodes has a node say that its pods have addresses which can't be theirs.
func TestPodsOfOtherNodes(t *testing.T) {
	e := trusting()
	set := func(namespace, name, node string, addrs ...string) {
		var parsed []netip.Addr
		for _, addr := range addrs {
			parsed = append(parsed, netip.MustParseAddr(addr))
		}
		p := podOf(withAddrs(podObject(namespace, name, "app=p", node), parsed...), nodeName)
		e.setPod(p.objectKey, p)
	}
	e.setPolicy(objectKey{"a", "p"}, policyOf(policyObject("a", "p", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")))
	want := []string{"10.42.0.10", "10.42.1.5"}
	check := func(when string) {
		t.Helper()
		if have := elementsOf(e, peerPods); !slices.Equal(have, want) {
			t.Errorf("%s: policies let in %v, want %v", when, have, want)
		}
		if v := e.verdicts[verdictMap{ipv4, ingress}].want["10.42.0.10"]; v == "" || v == "accept" {
			t.Errorf("%s: the pod that is here gets %q", when, v)
		}
	}
	set("a", "victim", nodeName, "10.42.0.10")
	set("a", "far", otherNode, "10.42.1.5")
	check("before")
	set("b", "liar", otherNode, "10.42.0.10") // younger than both
	check("another node says that it has this node's pod's address")
	e.setHost("node-3", hostOf(nodeObject("node-3", "192.168.88.3", "10.42.2.0/24")))
	set("b", "liar", "node-3", "10.42.1.5")
	check("another node says that it has a third one's pod's address")
	set("a", "insider", "node-3", "10.42.1.6", "192.168.88.9", "fd42::10")
	check("another node says that its pod has any address")
	e.setHost("node-3", nil)
	set("a", "insider", "node-3", "fd42::11", "10.42.0.11")
	check("a node that is gone says that its pod has this node's addresses")
	e.setHost("node-3", hostOf(nodeObject("node-3", "192.168.88.3", "10.42.2.0/24")))
	set("a", "insider", "node-3", "10.42.2.6")
	set("b", "liar", "node-3")
	want = []string{"10.42.0.10", "10.42.1.5", "10.42.2.6"}
	check("a pod that has an address of its own node")
}

// TestComponentsOfOtherNodes has a node say what it likes of its components.
func TestComponentsOfOtherNodes(t *testing.T) {
	e := trusting()
	e.setPolicy(objectKey{"a", "p"}, policyOf(policyObject("a", "p", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{
		namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]}]}`)))
	p := podOf(withAddrs(podObject("a", "client", "", nodeName), netip.MustParseAddr("10.42.0.10")), nodeName)
	e.setPod(p.objectKey, p)
	report := func(id string, addrs ...string) []string {
		e.setComponents(otherNode, componentsOf(nodestatus.NodeStatus{
			PodGateways: []string{"203.0.113.1"}, NodeIPs: []string{"203.0.113.2"}, // its word too
			Components: []nodestatus.ComponentState{{
				ID: id, Labels: map[string]string{"k8s-app": "kube-dns"}, Endpoints: []nodestatus.Endpoint{{
					Addresses: addrs, Ports: []nodestatus.Port{{Name: "dns", Protocol: "UDP", Port: 53}},
				}},
			}},
		}))
		return elementsOf(e, componentEndpoints)
	}
	for name, c := range map[string]struct {
		id   string
		addr string
		want []string
	}{
		"its pod gateway":         {"dns.coredns", "10.42.1.1", []string{"10.42.1.1 . udp . 53"}},
		"its own address":         {"dns.coredns", "192.168.88.2", []string{"192.168.88.2 . udp . 53"}},
		"its IPv6 pod gateway":    {"dns.coredns", "fd42:0:0:1::1", []string{"fd42:0:0:1::1 . udp . 53"}},
		"an address elsewhere":    {"dns.coredns", "203.0.113.1", nil},
		"this node's pod":         {"dns.coredns", "10.42.0.12", nil},
		"this node":               {"dns.coredns", "192.168.88.1", nil},
		"text for nft":            {"dns.coredns", "fe80::1%x } ; flush ruleset", nil},
		"text in a good address":  {"dns.coredns", "fd42:0:0:1::1%x }", nil},
		"IPv4 within IPv6":        {"dns.coredns", "::ffff:10.42.1.1", nil},
		"multicast":               {"dns.coredns", "224.0.0.1", nil},
		"all":                     {"dns.coredns", "0.0.0.0", nil},
		"loopback":                {"dns.coredns", "127.0.0.1", nil},
		"an unknown component":    {"dns.mine", "10.42.1.1", nil},
		"one with another's name": {"ingress.traefik", "10.42.1.1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if have := report(c.id, c.addr); !slices.Equal(have, c.want) {
				t.Errorf("policies let through to %v, want %v", have, c.want)
			}
		})
	}
	t.Run("its address before and after the Node is known", func(t *testing.T) {
		e.setHost(otherNode, nil)
		if have := report("dns.coredns", "10.42.1.1"); len(have) > 0 {
			t.Errorf("policies let through to %v", have)
		}
		e.setHost(otherNode, hostOf(nodeObject(otherNode, "192.168.88.2", "10.42.1.0/24")))
		if have := elementsOf(e, componentEndpoints); len(have) != 1 {
			t.Errorf("policies let through to %v", have)
		}
	})
	t.Run("a thousand", func(t *testing.T) {
		var addrs []string
		for i := range 1000 {
			addrs = append(addrs, fmt.Sprintf("10.42.1.%d", i/4))
		}
		if have := report("dns.coredns", addrs...); len(have) != maxEndpoints {
			t.Errorf("%d count, want %d", len(have), maxEndpoints)
		}
	})
}
