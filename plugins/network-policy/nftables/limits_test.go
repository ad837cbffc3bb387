package nftables

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestTooLarge multiplies the peers of one rule with its ports.
func TestTooLarge(t *testing.T) {
	peers := func(n int) (all []networkingv1.NetworkPolicyPeer) {
		for i := range n {
			all = append(all, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": fmt.Sprint(i)}}})
		}
		return all
	}
	blocks := func(n int) (all []networkingv1.NetworkPolicyPeer) {
		for i := range n {
			block := fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)
			all = append(all, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: block, Except: []string{strings.Replace(block, "/24", "/28", 1)}}})
		}
		return all
	}
	names := func(n int) (all []networkingv1.NetworkPolicyPort) {
		for i := range n {
			port := intstr.FromString(fmt.Sprint("p", i))
			all = append(all, networkingv1.NetworkPolicyPort{Port: &port})
		}
		return all
	}
	numbers := func(n int) (all []networkingv1.NetworkPolicyPort) {
		for i := range n {
			port := intstr.FromInt32(int32(2*i + 1))
			all = append(all, networkingv1.NetworkPolicyPort{Port: &port})
		}
		return all
	}
	large := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: "a", Operator: metav1.LabelSelectorOpIn, Values: []string{strings.Repeat("x", 60), strings.Repeat("y", 60)}}}}
	for i := range 2000 {
		large.MatchExpressions[0].Values = append(large.MatchExpressions[0].Values, fmt.Sprintf("%060d", i))
	}
	for name, c := range map[string]struct {
		peers    []networkingv1.NetworkPolicyPeer
		ports    []networkingv1.NetworkPolicyPort
		tooLarge [2]bool
	}{
		"many peers and some ports":             {peers(500), numbers(20), [2]bool{}},
		"some peers and some names":             {peers(50), names(20), [2]bool{}},
		"2500 peers and 2500 names":             {peers(2500), names(2500), [2]bool{true, true}},
		"20000 blocks and 20000 names":          {blocks(20000), names(20000), [2]bool{true, false}}, // no names in blocks
		"2500 peers and 2500 numbers":           {peers(2500), numbers(2500), [2]bool{true, true}},
		"a long selector and 2000 names of it":  {[]networkingv1.NetworkPolicyPeer{{PodSelector: &large}}, names(2000), [2]bool{false, true}},
		"2500 blocks with exceptions and names": {blocks(2500), names(2500), [2]bool{true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(nodeName, []family{ipv4, ipv6})
			var refused [2]bool
			e.refused = func(_ objectKey, d direction) { refused[d] = true }
			o := policyObject("a", "p", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
			o.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}, {From: c.peers, Ports: c.ports}}
			o.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}, {To: c.peers, Ports: c.ports}}
			e.setPolicy(objectKey{"a", "p"}, policyOf(o))
			if refused != c.tooLarge {
				t.Errorf("refused for ingress and egress: %v, want %v", refused, c.tooLarge)
			}
			if want := slices.Contains(c.tooLarge[:], true); e.tooLarge() == 1 != want {
				t.Errorf("counted as too large: %d, want %t", e.tooLarge(), want)
			}
			for _, d := range directions {
				r := e.policies[objectKey{"a", "p"}].rules[d]
				if allows := len(r.lines) > 0; allows == c.tooLarge[d] {
					t.Errorf("%s: it has %d lines", d, len(r.lines))
				}
			}
			p := podOf(withAddrs(podObject("a", "web", "", nodeName)), nodeName)
			e.setPod(p.objectKey, p)
			for _, d := range directions {
				if v := e.verdictsOf(func(yield func(*policy) bool) { yield(e.policies[objectKey{"a", "p"}]) })[d]; !v.isolated {
					t.Errorf("%s: a policy that is too large isolates nobody", d)
				}
			}
		})
	}
}
