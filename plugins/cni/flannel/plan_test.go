package flannel

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/k3m-io/k3m/sdk"
)

func addrs(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestNewPlanRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		facts sdk.Facts
		want  string
	}{
		"no cluster CIDR": {
			sdk.Facts{PacketFilter: sdk.NFTables, NodeIPs: addrs("192.0.2.1")},
			"no cluster CIDR",
		},
		"two of a family": {
			sdk.Facts{PacketFilter: sdk.NFTables, NodeIPs: addrs("192.0.2.1"), ClusterCIDRs: prefixes("10.42.0.0/16", "10.52.0.0/16")},
			"two cluster CIDRs of one family, 10.42.0.0/16 and 10.52.0.0/16",
		},
		"dual stack on a node with one address": {
			sdk.Facts{PacketFilter: sdk.NFTables, NodeIPs: addrs("192.0.2.1"), ClusterCIDRs: prefixes("10.42.0.0/16", "fd42::/56")},
			"cluster CIDR fd42::/56 is IPv6, but the node has no IPv6 address",
		},
		"no packet filter": {
			sdk.Facts{NodeIPs: addrs("192.0.2.1"), ClusterCIDRs: prefixes("10.42.0.0/16")},
			`unknown packet filter ""`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newPlan(config{Backend: backendVXLAN}, test.facts, "")
			expectError(t, err, test.want)
		})
	}
}

func TestPodMTU(t *testing.T) {
	for name, test := range map[string]struct {
		backend string
		six     bool
		set     int
		want    int
	}{
		"vxlan over IPv4":              {backendVXLAN, false, 0, 1450},
		"vxlan with IPv6":              {backendVXLAN, true, 0, 1430},
		"host-gw":                      {backendHostGW, false, 0, 1500},
		"wireguard":                    {backendWireGuard, false, 0, 1420},
		"what the user says is obeyed": {backendVXLAN, true, 9000, 9000},
	} {
		t.Run(name, func(t *testing.T) {
			p := &plan{config: config{Backend: test.backend, MTU: test.set}, cluster4: netip.MustParsePrefix("10.42.0.0/16")}
			if test.six {
				p.cluster6 = netip.MustParsePrefix("fd42::/56")
			}
			if have := p.podMTU(1500); have != test.want {
				t.Errorf("have %d, want %d", have, test.want)
			}
		})
	}
}

func TestParseSubnets(t *testing.T) {
	for name, test := range map[string]struct {
		cidrs      []string
		want, fail string
	}{
		"none":                   {nil, "", ""},
		"IPv4":                   {[]string{"10.42.0.0/24"}, "10.42.0.0/24", ""},
		"IPv6 first":             {[]string{"fd42::/64", "10.42.0.0/24"}, "10.42.0.0/24, fd42::/64", ""},
		"two of a family":        {[]string{"10.42.0.0/24", "10.42.1.0/24"}, "", "two pod CIDRs of one family"},
		"what is no CIDR at all": {[]string{"10.42.0.0"}, "", "parse pod CIDR"},
	} {
		t.Run(name, func(t *testing.T) {
			have, err := parseSubnets(test.cidrs)
			if test.fail != "" {
				expectError(t, err, test.fail)
			} else if err != nil || have.String() != test.want {
				t.Errorf("have %s, %v", have, err)
			}
		})
	}
}

// What another node's annotations may hold is another node's to write.
func FuzzClaimOf(f *testing.F) {
	f.Add("10.42.1.0/24", "fd42:0:0:1::/64", "192.0.2.2", "2001:db8::2", `{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}`)
	f.Add("10.42.1.0/24", "10.42.2.0/24", "", "::ffff:192.0.2.2", `null`)
	f.Add("10.42.1.0/24", "fd42::/64", "192.0.2.2", "2001:db8::2", `{"PublicKey":"AAA="}`)
	f.Add("0.0.0.0/0", "::/0", "2001:db8::2", "192.0.2.2", `{"VtepMAC":3}`)
	f.Fuzz(func(t *testing.T, cidr4, cidr6, ip4, ip6, data string) {
		node := &corev1.Node{}
		node.Name = "other"
		node.Spec.PodCIDRs = []string{cidr4, cidr6}
		node.Annotations = map[string]string{
			annotationManaged: "true", annotationBackendType: backendVXLAN,
			annotationPublicIP: ip4, annotationPublicIPv6: ip6,
			annotationBackendData: data, annotationBackendV6Data: data,
		}
		_ = vtepMAC(data)
		for _, p := range []*plan{
			{cluster4: netip.MustParsePrefix("10.42.0.0/16")},
			{cluster6: netip.MustParsePrefix("fd42::/56")},
			{cluster4: netip.MustParsePrefix("10.42.0.0/16"), cluster6: netip.MustParsePrefix("fd42::/56")},
		} {
			c, err := p.claimOf(node)
			if err != nil {
				continue
			}
			l := c.lease
			// A lease never claims addresses outside the cluster's ranges.
			if l.EnableIPv4 && !strings.HasPrefix(l.Subnet.String(), "10.42.") {
				t.Errorf("lease of %s", l.Subnet)
			}
			if l.EnableIPv6 && !strings.HasPrefix(l.IPv6Subnet.String(), "fd42:") {
				t.Errorf("lease of %s", l.IPv6Subnet)
			}
			_ = l.Attrs.String()
		}
	})
}

func FuzzDeletesFrom(f *testing.F) {
	const deleteTable = 10<<8 | 2
	f.Add(uint16(deleteTable), []byte("\x02\x00\x00\x00\x11\x00\x01\x00flannel-ipv4\x00\x00\x00\x00"))
	f.Add(uint16(deleteTable), []byte("\x02\x00\x00\x00\x03\x00\x01\x00"))
	f.Fuzz(func(_ *testing.T, kind uint16, data []byte) { deletesFrom(kind, data, nftTables) })
}

func TestDeletesFrom(t *testing.T) {
	message := func(table string) []byte {
		length := 4 + len(table) + 1
		data := append([]byte{2, 0, 0, 0, 8, 0, 9, 0, 0, 0, 0, 1, byte(length), 0, 1, 0}, table...)
		return append(data, make([]byte, 8-length%4)...)
	}
	for name, test := range map[string]struct {
		kind uint16
		data []byte
		want bool
	}{
		"our table is deleted":         {10<<8 | 2, message("flannel-ipv4"), true},
		"a rule of ours is deleted":    {10<<8 | 8, message("flannel-ipv6"), true},
		"a rule of ours is added":      {10<<8 | 6, message("flannel-ipv4"), false},
		"another's table is deleted":   {10<<8 | 2, message("kube-proxy"), false},
		"a message of another system":  {1<<8 | 2, message("flannel-ipv4"), false},
		"a message without attributes": {10<<8 | 2, []byte{2, 0, 0, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if have := deletesFrom(test.kind, test.data, nftTables); have != test.want {
				t.Errorf("have %t", have)
			}
		})
	}
}
