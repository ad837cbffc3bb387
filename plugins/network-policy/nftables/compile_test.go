package nftables

import (
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/knftables"
)

func TestMergeSpans(t *testing.T) {
	for name, c := range map[string]struct {
		spans []span
		want  string
	}{
		"one":             {[]span{{80, 80}}, "{ 80 }"},
		"twice":           {[]span{{80, 80}, {80, 80}}, "{ 80 }"},
		"within":          {[]span{{1, 100}, {80, 80}}, "{ 1-100 }"},
		"overlapping":     {[]span{{50, 60}, {1, 55}}, "{ 1-60 }"},
		"side by side":    {[]span{{81, 90}, {80, 80}}, "{ 80-90 }"},
		"apart":           {[]span{{443, 443}, {80, 80}}, "{ 80, 443 }"},
		"up to the last":  {[]span{{65535, 65535}, {1, 65535}}, "{ 1-65535 }"},
		"the last, alone": {[]span{{65535, 65535}, {65534, 65534}}, "{ 65534-65535 }"},
	} {
		t.Run(name, func(t *testing.T) {
			if have := braces(mergeSpans(c.spans)); have != c.want {
				t.Errorf("%s, want %s", have, c.want)
			}
		})
	}
}

func TestOutermost(t *testing.T) {
	var blocks []netip.Prefix
	for _, text := range []string{"10.1.2.0/24", "10.0.0.0/8", "10.0.0.0/16", "192.168.0.0/16", "10.0.0.0/8", "192.168.1.1/32", "9.0.0.0/8"} {
		blocks = append(blocks, netip.MustParsePrefix(text))
	}
	if have, want := braces(outermost(blocks)), "{ 9.0.0.0/8, 10.0.0.0/8, 192.168.0.0/16 }"; have != want {
		t.Errorf("%s, want %s", have, want)
	}
}

// TestSameRulesAreOneChain is why 500 namespaces that deny all cost as much as one.
func TestSameRulesAreOneChain(t *testing.T) {
	c := compiler{families: []family{ipv4}, components: func(*selector) bool { return false }}
	spec := policyObject("a", "p", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {x: y, z: w}}}, {ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 1}, {port: 2}]}]}").Spec
	turned := policyObject("b", "q", "{podSelector: {matchLabels: {k: v}}, ingress: [{ports: [{port: 2}, {port: 1}], from: [{ipBlock: {cidr: 10.1.2.3/8}}, {namespaceSelector: {matchLabels: {z: w, x: y}}}]}]}").Spec
	one, other := c.policy("a", &spec, ingress), c.policy("b", &turned, ingress)
	if one.name != other.name {
		t.Errorf("%v and %v", one.lines, other.lines)
	}
	spec.Ingress[0].Ports[0].Port.IntVal = 3
	if changed := c.policy("a", &spec, ingress); changed.name == one.name {
		t.Error("another port is the same chain")
	}
}

// TestBrokenRulesAllowNobody gives what the API would not let in.
func TestBrokenRulesAllowNobody(t *testing.T) {
	c := compiler{families: []family{ipv4, ipv6}, components: func(*selector) bool { return true }}
	for name, rules := range map[string]string{
		"a block that is none":        "{from: [{ipBlock: {cidr: everywhere}}]}",
		"an exception that is none":   "{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [here]}}]}",
		"an exception that is all":    "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [0.0.0.0/0]}}]}",
		"a peer that names nothing":   "{from: [{}]}",
		"a port that is out of range": "{ports: [{port: 70000}]}",
		"a range that ends too soon":  "{ports: [{port: 80, endPort: 70}]}",
		"an unknown protocol":         "{ports: [{port: 80, protocol: ICMP}]}",
	} {
		t.Run(name, func(t *testing.T) {
			spec := policyObject("a", "p", "{podSelector: {}, ingress: ["+rules+"]}").Spec
			if have := c.policy("a", &spec, ingress); len(have.lines) > 0 {
				t.Errorf("allows %v", have.lines)
			}
		})
	}
}

// FuzzPolicy fills a NetworkPolicy with whatever texts and numbers: nothing that a user can write
// makes the component panic, or gets into nft's input other than as a number, an address or a
// digest. With root, nft itself has to take it.
func FuzzPolicy(f *testing.F) {
	f.Add("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "app", "web", "http", "TCP", int32(80), int32(90), int32(85))
	f.Add("::/0", "::/1", "8000::/1", "a/b", "x,y", "a b;{", "SCTP", int32(1), int32(65535), int32(0))
	f.Add("0.0.0.0/0", "010.0.0.1/7", "0.0.0.0/0", "k\"", "v\n", "web", "UDP", int32(-1), int32(0), int32(70000))
	f.Add("::ffff:1.2.3.4/100", "fe80::1%eth0/64", "1.2.3.4", "", "", "", "", int32(53), int32(53), int32(54))
	_, err := exec.LookPath("nft")
	real := err == nil && os.Getuid() == 0
	f.Fuzz(func(t *testing.T, block, except, otherBlock, key, value, name, protocol string, first, last, other int32) {
		p := corev1.Protocol(protocol)
		byName, byNumber, byOther := intstr.FromString(name), intstr.FromInt32(first), intstr.FromInt32(other)
		selector := metav1.LabelSelector{MatchLabels: map[string]string{key: value}, MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: value, Operator: metav1.LabelSelectorOpNotIn, Values: []string{name, key}}}}
		peers := []networkingv1.NetworkPolicyPeer{
			{IPBlock: &networkingv1.IPBlock{CIDR: block, Except: []string{except, otherBlock}}}, {IPBlock: &networkingv1.IPBlock{CIDR: otherBlock}},
			{IPBlock: &networkingv1.IPBlock{CIDR: block}}, {PodSelector: &selector}, {NamespaceSelector: &selector, PodSelector: &metav1.LabelSelector{}},
		}
		ports := []networkingv1.NetworkPolicyPort{
			{Protocol: &p, Port: &byName}, {Protocol: &p, Port: &byNumber, EndPort: &last}, {Port: &byOther}, {Port: &byNumber}, {Port: &byOther, EndPort: &last},
		}
		fuzzOne(t, networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: ports}, {From: peers[:1]}, {Ports: ports[1:3]}},
			Egress:      []networkingv1.NetworkPolicyEgressRule{{To: peers, Ports: ports}, {To: peers[3:]}, {Ports: ports[:1]}},
		}, objectKey{key, name}, real)
	})
}

// fuzzOne has an engine with one pod that the policy selects, whose names and labels are texts of
// the same sort.
func fuzzOne(t *testing.T, spec networkingv1.NetworkPolicySpec, key objectKey, real bool) {
	e := newEngine(nodeName, []family{ipv4, ipv6})
	e.setNamespace(key.namespace, labels.Set{key.namespace: key.name}, true)
	e.setNamespace(componentNamespace, labels.Set{}, true)
	e.setComponents(nodeName, componentsOf(componentsObject(nodeName, "10.42.0.1", true).Status))
	o := withAddrs(podObject(key.namespace, key.name, "", nodeName), netip.MustParseAddr("10.42.0.10"), netip.MustParseAddr("fd42::10"))
	o.Labels = map[string]string{key.namespace: key.name}
	o.Spec.Containers[0].Ports[0].Name = key.name
	e.setPod(key, podOf(o, nodeName))
	e.setPolicy(key, policyOf(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: key.namespace, Name: key.name}, Spec: spec}))
	e.judge()
	fake := knftables.NewFake(knftables.InetFamily, tableName)
	tx := fake.NewTransaction()
	(&programmer{nft: fake, network: network{families: e.families, bridge: "cni0"}, fresh: true}).write(tx, e, nil, nil)
	text := tx.String()
	for line := range strings.Lines(text) {
		if !allowedLine(line) {
			t.Errorf("%q is in nft's input", line)
		}
	}
	if !real {
		return
	}
	command := exec.CommandContext(t.Context(), "nft", "--check", "-f", "-")
	command.Stdin = strings.NewReader(text)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("nft does not take it: %v: %s\n%s", err, out, text)
	}
}

// words are all that may be in nft's input, besides numbers, addresses and digests.
var words = strings.Fields(`add delete flush table inet chain rule set map element counter type filter hook forward input priority policy
	accept comment name drop jump goto ct state established related icmpv6 meta l4proto nfproto tcp udp sctp th dport ip ip6 saddr daddr
	vmap hoplimit iifname oifname cni0 lo ipv4 ipv6 ipv4_addr ipv6_addr inet_service inet_proto verdict : . != k3m network-policy.nftables
	k3m-network-policy unknown denied-ingress denied-egress forward-egress input-egress forward-ingress itself4 itself6
	ingress4 ingress6 egress4 egress6`)

var values = regexp.MustCompile(`^([0-9]+(-[0-9]+)?|-[56]|[0-9a-f.:]+(/[0-9]+)?|(in|out|pod-in|pod-out|(pods|ports|own|comps)[46])-[0-9a-f]{24})$`)

func allowedLine(line string) bool {
	return !slices.ContainsFunc(strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" {},;@\"\n", r) }), func(word string) bool {
		return !slices.Contains(words, word) && !values.MatchString(word)
	})
}
