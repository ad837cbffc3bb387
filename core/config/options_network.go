package config

import (
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// nodeOptions are what a node says of itself.
var nodeOptions = []option{
	{name: "with-node-id", boolean: true, usage: "append an ID to the node's name that is made once and kept in the data directory, for machines of the same name",
		set: boolean(func(c *Config) *bool { return &c.WithNodeID })},
	{name: "node-label", list: true, usage: "label of the node, as KEY=VALUE; set at each start",
		set: split(setNodeLabels)},
	{name: "node-taint", list: true, usage: "taint of the node, as KEY=VALUE:EFFECT; given to it when it joins",
		set: split(setNodeTaints)},
	{name: "node-external-ip", list: true, usage: "address at which clients outside of the cluster's network reach the node; of each family at most one",
		set: addresses("node-external-ip", func(c *Config) *[]netip.Addr { return &c.NodeExternalIPs })},
	{name: "protect-kernel-defaults", boolean: true, usage: "refuse to start when kernel settings are not those that the kubelet wants, instead of changing them",
		set: boolean(func(c *Config) *bool { return &c.ProtectKernelDefaults })},
}

// clusterOptions are the cluster's addresses. They hold from its first start on.
var clusterOptions = []option{
	{name: "cluster-cidr", list: true, usage: "range of the pods' addresses, of a dual-stack cluster one of each family (default " + DefaultClusterCIDR + ")",
		set: ranges("cluster-cidr", func(c *Config) *[]netip.Prefix { return &c.ClusterCIDRs }, widths{8, 24, 48, 64})},
	{name: "service-cidr", list: true, usage: "range of the Services' addresses, of a dual-stack cluster one of each family (default " + DefaultServiceCIDR + ")",
		set: ranges("service-cidr", func(c *Config) *[]netip.Prefix { return &c.ServiceCIDRs }, widths{12, 28, 108, 124})},
	{name: "service-node-port-range", usage: "ports that NodePort Services get (default " + DefaultNodePorts + ")",
		set: one(func(c *Config, v Value) error {
			first, last, ok := strings.Cut(v.Text, "-")
			low, lowErr := strconv.ParseUint(first, 10, 16)
			high, highErr := strconv.ParseUint(last, 10, 16)
			if !ok || lowErr != nil || highErr != nil || low == 0 || low > high {
				return &Error{v.Source, fmt.Sprintf("%q is not a range of ports FIRST-LAST from 1 to 65535, such as %s", v.Text, DefaultNodePorts)}
			}
			c.NodePorts = PortRange{int(low), int(high)}
			return nil
		})},
}

// apiOptions are where the API is and who may read the administrator's kubeconfig.
var apiOptions = []option{
	{name: "bind-address", usage: "address on which the API listens (default: all)",
		set: one(func(c *Config, v Value) error {
			addr, err := netip.ParseAddr(v.Text)
			if err != nil || addr.IsMulticast() || addr.Zone() != "" {
				return &Error{v.Source, fmt.Sprintf("%q is not an address to listen on, such as 0.0.0.0 or an address of the node", v.Text)}
			}
			c.BindAddress = addr.Unmap()
			return nil
		})},
	{name: "https-listen-port", usage: "port on which the API listens (default " + strconv.Itoa(APIPort) + ")",
		set: number(func(c *Config) *int { return &c.HTTPSPort }, 1, 65535)},
	{name: "advertise-address", usage: "address at which pods reach the API (default: the node's)",
		set: one(func(c *Config, v Value) error {
			addr, err := address(v)
			if err == nil && addr.IsLoopback() {
				err = &Error{v.Source, fmt.Sprintf("%q is a loopback address, at which pods can't reach the API", v.Text)}
			}
			c.AdvertiseAddress = addr
			return err
		})},
	{name: "tls-san", list: true, usage: "another name or address for the API's certificate",
		set: split(setTLSSANs)},
	{name: "write-kubeconfig-mode", usage: "mode of the administrator's kubeconfig, in octal (default 0600; 0640 with --write-kubeconfig-group)",
		set: one(func(c *Config, v Value) error {
			mode, err := strconv.ParseUint(v.Text, 8, 32)
			if err != nil || mode > 0o777 || mode&0o600 != 0o600 || mode&0o113 != 0 {
				return &Error{v.Source, fmt.Sprintf("%q is not a mode for a file of secrets; allowed: 0600, 0640, 0660, 0644 and their like: "+
					"root reads and writes it, and others may at most read it", v.Text)}
			}
			c.KubeconfigMode = os.FileMode(mode)
			return nil
		})},
	{name: "write-kubeconfig-group", usage: "group of the administrator's kubeconfig, by name or number (default: root's)",
		set: one(setKubeconfigGroup)},
}

// split makes a list option take comma-separated texts too.
func split(store func(c *Config, values []Value) error) func(*Config, []Value) error {
	return func(c *Config, values []Value) error {
		var items []Value
		for _, v := range values {
			for item := range strings.SplitSeq(v.Text, ",") {
				items = append(items, Value{strings.TrimSpace(item), v.Source})
			}
		}
		return store(c, items)
	}
}

// address is one that a machine or a Service can have.
func address(v Value) (netip.Addr, error) {
	addr, err := netip.ParseAddr(v.Text)
	if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.Is6() && addr.IsLinkLocalUnicast() || addr.Zone() != "" {
		return netip.Addr{}, &Error{v.Source, fmt.Sprintf("%q is not an IPv4 or IPv6 address of one machine, such as 192.0.2.10 or 2001:db8::10", v.Text)}
	}
	return addr.Unmap(), nil
}

// addresses options are one address of each family at most.
func addresses(name string, field func(c *Config) *[]netip.Addr) func(*Config, []Value) error {
	return split(func(c *Config, values []Value) error {
		var all []netip.Addr
		for _, v := range values {
			addr, err := address(v)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(all, func(other netip.Addr) bool { return other.Is4() == addr.Is4() }) {
				return &Error{v.Source, fmt.Sprintf("%s is the second %s address of %s; give one of each family at most", addr, family(addr), name)}
			}
			all = append(all, addr)
		}
		*field(c) = all
		return nil
	})
}

// widths are the shortest and longest prefixes of a range, by family.
type widths struct{ min4, max4, min6, max6 int }

// ranges options are one range of each family at most.
func ranges(name string, field func(c *Config) *[]netip.Prefix, w widths) func(*Config, []Value) error {
	return split(func(c *Config, values []Value) error {
		var all []netip.Prefix
		for _, v := range values {
			prefix, err := netip.ParsePrefix(v.Text)
			if err != nil || prefix.Addr().Is4In6() {
				return &Error{v.Source, fmt.Sprintf("%q is not a range of addresses, such as %s or fd42::/56", v.Text, DefaultClusterCIDR)}
			}
			if prefix != prefix.Masked() {
				return &Error{v.Source, fmt.Sprintf("%s begins within a range; did you mean %q?", prefix, prefix.Masked())}
			}
			shortest, longest := w.min4, w.max4
			if prefix.Addr().Is6() {
				shortest, longest = w.min6, w.max6
			}
			if prefix.Bits() < shortest || prefix.Bits() > longest {
				return &Error{v.Source, fmt.Sprintf("%s is a /%d; an %s range of %s is a /%d to /%d", prefix, prefix.Bits(), family(prefix.Addr()), name, shortest, longest)}
			}
			if slices.ContainsFunc(all, func(other netip.Prefix) bool { return other.Addr().Is4() == prefix.Addr().Is4() }) {
				return &Error{v.Source, fmt.Sprintf("%s is the second %s range of %s; give one of each family at most", prefix, family(prefix.Addr()), name)}
			}
			all = append(all, prefix)
		}
		*field(c) = all
		return nil
	})
}

func family(addr netip.Addr) string {
	if addr.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// setNodeLabels takes what a kubelet may say of its node: the kubelet and the API server's
// NodeRestriction refuse other labels of Kubernetes' own.
func setNodeLabels(c *Config, values []Value) error {
	c.NodeLabels = map[string]string{}
	for _, v := range values {
		key, value, ok := strings.Cut(v.Text, "=")
		if !ok {
			return &Error{v.Source, fmt.Sprintf("%q is not of the form KEY=VALUE", v.Text)}
		}
		if problems := slices.Concat(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)); len(problems) > 0 {
			return &Error{v.Source, fmt.Sprintf("%q can't be a label: %s", v.Text, problems[0])}
		}
		if reservedLabel(key) {
			return &Error{v.Source, fmt.Sprintf("label %q is one that Kubernetes doesn't let a node give itself; choose a key of your own, "+
				"one below node.kubernetes.io/, or use `k3m kubectl label node`", key)}
		}
		c.NodeLabels[key] = value
	}
	return nil
}

// selfLabels are the labels of Kubernetes' own that a kubelet may set without knowing better.
var selfLabels = []string{
	corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelInstanceTypeStable,
	corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion, corev1.LabelInstanceType,
}

// reservedLabel: see IsKubeletLabel in k8s.io/kubelet/pkg/apis. Host name, operating system and
// architecture are the kubelet's to say.
func reservedLabel(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	within := func(parent string) bool { return domain == parent || strings.HasSuffix(domain, "."+parent) }
	switch {
	case !ok || !within("kubernetes.io") && !within("k8s.io"):
		return false
	case within("kubelet.kubernetes.io"), within("node.kubernetes.io") && key != corev1.LabelInstanceTypeStable:
		return false
	}
	return !slices.Contains(selfLabels, key)
}

// taintEffects are those that a node can have.
var taintEffects = []string{string(corev1.TaintEffectNoSchedule), string(corev1.TaintEffectPreferNoSchedule), string(corev1.TaintEffectNoExecute)}

func setNodeTaints(c *Config, values []Value) error {
	c.NodeTaints = nil
	for _, v := range values {
		what, effect, ok := strings.Cut(v.Text, ":")
		key, value, _ := strings.Cut(what, "=")
		if !ok {
			return &Error{v.Source, fmt.Sprintf("%q is not of the form KEY=VALUE:EFFECT; effects: %s", v.Text, strings.Join(taintEffects, ", "))}
		}
		if !slices.Contains(taintEffects, effect) {
			return &Error{v.Source, fmt.Sprintf("unknown effect %q%s; allowed: %s", effect, DidYouMean(effect, taintEffects), strings.Join(taintEffects, ", "))}
		}
		if problems := slices.Concat(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)); len(problems) > 0 {
			return &Error{v.Source, fmt.Sprintf("%q can't be a taint: %s", v.Text, problems[0])}
		}
		taint := corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)}
		if slices.ContainsFunc(c.NodeTaints, func(other corev1.Taint) bool { return other.MatchTaint(&taint) }) {
			return &Error{v.Source, fmt.Sprintf("taint %s:%s is given twice", key, effect)}
		}
		c.NodeTaints = append(c.NodeTaints, taint)
	}
	return nil
}

func setTLSSANs(c *Config, values []Value) error {
	c.TLSSANs = nil
	for _, v := range values {
		if addr, err := netip.ParseAddr(v.Text); err == nil && addr.Zone() == "" && !addr.IsUnspecified() {
			c.TLSSANs = append(c.TLSSANs, addr.Unmap().String())
			continue
		}
		name := strings.ToLower(v.Text)
		if len(validation.IsDNS1123Subdomain(name)) > 0 && len(validation.IsWildcardDNS1123Subdomain(name)) > 0 {
			return &Error{v.Source, fmt.Sprintf("%q is neither an address nor a DNS name, such as k3m.example.org; give it without scheme and port", v.Text)}
		}
		c.TLSSANs = append(c.TLSSANs, name)
	}
	return nil
}

func setKubeconfigGroup(c *Config, v Value) error {
	if gid, err := strconv.ParseUint(v.Text, 10, 31); err == nil {
		c.KubeconfigGID = int(gid)
		return nil
	}
	group, err := user.LookupGroup(v.Text)
	if err != nil {
		return &Error{v.Source, fmt.Sprintf("group %q is not known on this machine; `getent group` lists those that are", v.Text)}
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return &Error{v.Source, fmt.Sprintf("group %q has no number: %v", v.Text, err)}
	}
	c.KubeconfigGID = gid
	return nil
}
