package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last int }

// Contains tells whether a port lies in the range.
func (r PortRange) Contains(port int) bool { return r.First <= port && port <= r.Last }

func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Source is where an option was found, for errors: its name when nobody wrote it down.
func (c *Config) Source(option string) string {
	if values := c.settings[option]; len(values) > 0 {
		return values[0].Source
	}
	return option
}

// finishNetwork fills in what follows from the ranges of addresses, and checks that they, the
// node's addresses and the API's agree.
func finishNetwork(c *Config) error {
	if err := checkRanges(c); err != nil {
		return err
	}
	if len(c.ClusterDNS) == 0 {
		for _, services := range c.ServiceCIDRs {
			c.ClusterDNS = append(c.ClusterDNS, nth(services, 10))
		}
	}
	if len(c.NodeIPs) > 0 {
		if err := c.SetNodeIPs(c.NodeIPs); err != nil {
			return err
		}
	}
	primary := c.ServiceCIDRs[0].Addr()
	if a := c.AdvertiseAddress; a.IsValid() && a.Is4() != primary.Is4() {
		return &Error{c.Source("advertise-address"), fmt.Sprintf("%s is %s, but the first range of services, %s, is %s; give an address of that family",
			a, family(a), c.ServiceCIDRs[0], family(primary))}
	}
	for what, port := range map[string]int{"the API": c.HTTPSPort, "the kubelet": kubeletPort} {
		if c.NodePorts.Contains(port) {
			return &Error{c.Source("service-node-port-range"), fmt.Sprintf("%s contains %d, the port of %s, which a Service could take from it; choose a range without it, such as %s",
				c.NodePorts, port, what, DefaultNodePorts)}
		}
	}
	if c.HTTPSPort == kubeletPort {
		return &Error{c.Source("https-listen-port"), fmt.Sprintf("%d is the kubelet's port; choose another, such as %d", kubeletPort, APIPort)}
	}
	return nil
}

// kubeletPort is upstream's default.
const kubeletPort = 10250

// checkRanges: pods and Services have the same families, and no two ranges overlap.
func checkRanges(c *Config) error {
	families := func(prefixes []netip.Prefix) []bool {
		var is4 []bool
		for _, p := range prefixes {
			is4 = append(is4, p.Addr().Is4())
		}
		return is4
	}
	if pods, services := families(c.ClusterCIDRs), families(c.ServiceCIDRs); !slices.Equal(pods, services) {
		source := c.Source("cluster-cidr")
		if len(c.settings["cluster-cidr"]) == 0 {
			source = c.Source("service-cidr")
		}
		return &Error{source, fmt.Sprintf("pods have %s and services %s; give --cluster-cidr and --service-cidr ranges of the same families in the same order",
			texts(c.ClusterCIDRs), texts(c.ServiceCIDRs))}
	}
	for _, pods := range c.ClusterCIDRs {
		for _, services := range c.ServiceCIDRs {
			if pods.Overlaps(services) {
				source := c.Source("service-cidr")
				if len(c.settings["service-cidr"]) == 0 {
					source = c.Source("cluster-cidr")
				}
				return &Error{source, fmt.Sprintf("the range of pods, %s, and that of services, %s, overlap; choose ranges that don't", pods, services)}
			}
		}
	}
	return nil
}

// Families are the families of the cluster's addresses, the preferred one first: true stands
// for IPv4.
func (c *Config) Families() []bool {
	var is4 []bool
	for _, services := range c.ServiceCIDRs {
		is4 = append(is4, services.Addr().Is4())
	}
	return is4
}

// SetNodeIPs sets the node's addresses, those of the cluster's preferred family first. The node
// needs one of each of the cluster's families, outside of the cluster's own ranges.
func (c *Config) SetNodeIPs(ips []netip.Addr) error {
	families := c.Families()
	for _, ip := range ips {
		for _, taken := range slices.Concat(c.ClusterCIDRs, c.ServiceCIDRs) {
			if taken.Contains(ip) {
				return &Error{c.Source("node-ip"), fmt.Sprintf("%s, an address of the node, lies in the cluster's range %s; choose other ranges with --cluster-cidr and --service-cidr",
					ip, taken)}
			}
		}
		if !slices.Contains(families, ip.Is4()) {
			return &Error{c.Source("node-ip"), fmt.Sprintf("%s is %s, which the cluster's ranges, %s, are not; choose ranges of that family with --cluster-cidr and --service-cidr, or leave the address out",
				ip, family(ip), texts(c.ClusterCIDRs))}
		}
	}
	var ordered []netip.Addr
	for _, is4 := range families {
		i := slices.IndexFunc(ips, func(ip netip.Addr) bool { return ip.Is4() == is4 })
		if i < 0 {
			return &Error{c.Source("node-ip"), fmt.Sprintf("the node has no address of the family of the cluster's range %s; give it one with --node-ip",
				c.rangeOf(is4))}
		}
		ordered = append(ordered, ips[i])
	}
	c.NodeIPs = ordered
	return nil
}

func (c *Config) rangeOf(is4 bool) netip.Prefix {
	for _, p := range c.ClusterCIDRs {
		if p.Addr().Is4() == is4 {
			return p
		}
	}
	return netip.Prefix{}
}

// CheckClusterDNS sees that, where the cluster's DNS is served from inside, its Service can have
// the addresses.
func (c *Config) CheckClusterDNS() error {
	for _, dns := range c.ClusterDNS {
		free := slices.ContainsFunc(c.ServiceCIDRs, func(services netip.Prefix) bool {
			// The first address of a range is the API's Service.
			return services.Contains(dns) && dns != services.Addr() && dns != nth(services, 1)
		})
		if !free {
			return &Error{c.Source("cluster-dns"), fmt.Sprintf("%s is not a free address of the range of services, %s; choose another, such as %s, or --disable dns and serve it yourself",
				dns, texts(c.ServiceCIDRs), nth(c.ServiceCIDRs[0], 10))}
		}
	}
	return nil
}

// nth is the n-th address of a range; n is small.
func nth(p netip.Prefix, n int) netip.Addr {
	addr := p.Addr()
	for range n {
		addr = addr.Next()
	}
	return addr
}

func texts[T fmt.Stringer](items []T) string {
	text := ""
	for i, item := range items {
		if i > 0 {
			text += ","
		}
		text += item.String()
	}
	return text
}
