package sdk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/k3m-io/k3m/sdk/proto/pluginv1"
)

// maxReason and maxError bound the texts that travel to the host, in bytes.
const (
	maxReason = 1 << 10
	maxError  = 8 << 10
)

// infoToWire is the one place where an Info leaves the plugin; client has its twin.
func infoToWire(i Info) *pluginv1.Info {
	w := &pluginv1.Info{
		Kind: i.Kind, Name: i.Name, Version: i.Version, Summary: i.Summary,
		Scope:        string(i.Scope),
		Privileges:   &pluginv1.Privileges{Root: i.Privileges.Root, Capabilities: i.Privileges.Capabilities},
		Limits:       &pluginv1.Limits{MemoryBytes: i.Limits.MemoryBytes, CpuMilli: i.Limits.CPUMilli},
		Images:       i.Images,
		ConfigSchema: i.ConfigSchema,
		Abilities:    i.Abilities,
		ApiMinor:     i.APIMinor,

		Services: i.Services, ServingCertificate: i.ServingCertificate, Labels: i.Labels,
	}
	for _, o := range i.Objects {
		w.Objects = append(w.Objects, o)
	}
	for _, d := range i.Declares {
		w.Declares = append(w.Declares, &pluginv1.ObjectRef{ApiVersion: d.APIVersion, Kind: d.Kind, Namespace: d.Namespace, Name: d.Name})
	}
	for _, r := range i.Requires {
		w.Requires = append(w.Requires, string(r))
	}
	for _, r := range i.Rules {
		w.Rules = append(w.Rules, &pluginv1.Rule{
			Verbs: r.Verbs, ApiGroups: r.APIGroups, Resources: r.Resources,
			ResourceNames: r.ResourceNames, NonResourceUrls: r.NonResourceURLs,
		})
	}
	for _, c := range i.Commands {
		w.Commands = append(w.Commands, &pluginv1.Command{Name: c.Name, Summary: c.Summary})
	}
	return w
}

func factsFromWire(w *pluginv1.Facts) (Facts, error) {
	p := w.GetPaths()
	f := Facts{
		NodeName:        w.GetNodeName(),
		ClusterDomain:   w.GetClusterDomain(),
		PacketFilter:    PacketFilter(w.GetPacketFilter()),
		CgroupParent:    w.GetCgroupParent(),
		PauseImage:      w.GetPauseImage(),
		RuntimeEndpoint: w.GetRuntimeEndpoint(),
		ResolvConf:      w.GetResolvConf(), LocalStoragePath: w.GetLocalStoragePath(),
		KindRank: int(w.GetKindRank()),
		Paths: Paths{
			BinDir: p.GetBinDir(), CarriedCNIDir: p.GetCarriedCniDir(),
			CNIBinDir: p.GetCniBinDir(), CNIConfDir: p.GetCniConfDir(),
			ImagesDir: p.GetImagesDir(), CarriedImagesDir: p.GetCarriedImagesDir(),
			RunDir: p.GetRunDir(), AgentDir: p.GetAgentDir(),
		},
	}
	var err error
	parse := func(field string, from []string, addrs *[]netip.Addr, prefixes *[]netip.Prefix) {
		for _, s := range from {
			var e error
			if addrs != nil {
				var a netip.Addr
				a, e = netip.ParseAddr(s)
				*addrs = append(*addrs, a)
			} else {
				var x netip.Prefix
				x, e = netip.ParsePrefix(s)
				*prefixes = append(*prefixes, x)
			}
			if e != nil && err == nil {
				err = fmt.Errorf("read facts: %s: %w", field, e)
			}
		}
	}
	parse("node_ips", w.GetNodeIps(), &f.NodeIPs, nil)
	parse("cluster_cidrs", w.GetClusterCidrs(), nil, &f.ClusterCIDRs)
	parse("service_cidrs", w.GetServiceCidrs(), nil, &f.ServiceCIDRs)
	parse("cluster_dns", w.GetClusterDns(), &f.ClusterDNS, nil)
	parse("pod_gateways", w.GetPodGateways(), &f.PodGateways, nil)
	switch f.PacketFilter {
	case "", NFTables, IPTables:
	default:
		if err == nil {
			err = fmt.Errorf("read facts: packet_filter %q is neither %q nor %q", f.PacketFilter, NFTables, IPTables)
		}
	}
	return f, err
}

// configFromWire gives a missing block its empty form and refuses what is no JSON object.
func configFromWire(raw []byte) (json.RawMessage, error) {
	if len(bytes.TrimSpace(raw)) == 0 || string(bytes.TrimSpace(raw)) == "null" {
		return json.RawMessage("{}"), nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, fmt.Errorf("read configuration: want a JSON object: %w", err)
	}
	return raw, nil
}
