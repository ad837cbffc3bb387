package client

import (
	"fmt"
	"net/netip"
	"path"
	"strings"
	"unicode"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/internal/text"
	"github.com/k3m-io/k3m/sdk/proto/pluginv1"
)

// Bounds on what a plugin says, in bytes and entries. Those of an Info are in
// sdk.Info.Validate.
const (
	maxReason   = 1 << 10
	maxError    = 8 << 10
	maxProblems = 100
	maxGateways = 16
	// maxSocketPath is Linux' sun_path without its final zero (unix(7)).
	maxSocketPath = 107
)

// infoFromWire only copies; Validate judges.
func infoFromWire(w *pluginv1.Info) sdk.Info {
	i := sdk.Info{
		Kind: w.GetKind(), Name: w.GetName(), Version: w.GetVersion(), Summary: w.GetSummary(),
		Scope: sdk.Scope(w.GetScope()),
		Privileges: sdk.Privileges{
			Root: w.GetPrivileges().GetRoot(), Capabilities: w.GetPrivileges().GetCapabilities(),
		},
		Limits:    sdk.Limits{MemoryBytes: w.GetLimits().GetMemoryBytes(), CPUMilli: w.GetLimits().GetCpuMilli()},
		Images:    w.GetImages(),
		Abilities: w.GetAbilities(),
		APIMinor:  w.GetApiMinor(),
	}
	if len(w.GetConfigSchema()) > 0 {
		i.ConfigSchema = w.GetConfigSchema()
	}
	for _, r := range w.GetRequires() {
		i.Requires = append(i.Requires, sdk.Requirement(r))
	}
	for _, r := range w.GetRules() {
		i.Rules = append(i.Rules, sdk.Rule{
			Verbs: r.GetVerbs(), APIGroups: r.GetApiGroups(), Resources: r.GetResources(),
			ResourceNames: r.GetResourceNames(), NonResourceURLs: r.GetNonResourceUrls(),
		})
	}
	for _, c := range w.GetCommands() {
		i.Commands = append(i.Commands, sdk.Command{Name: c.GetName(), Summary: c.GetSummary()})
	}
	return i
}

func factsToWire(f sdk.Facts) *pluginv1.Facts {
	return &pluginv1.Facts{
		NodeName:        f.NodeName,
		NodeIps:         text.Strings(f.NodeIPs),
		ClusterCidrs:    text.Strings(f.ClusterCIDRs),
		ServiceCidrs:    text.Strings(f.ServiceCIDRs),
		ClusterDns:      text.Strings(f.ClusterDNS),
		ClusterDomain:   f.ClusterDomain,
		PodGateways:     text.Strings(f.PodGateways),
		PacketFilter:    string(f.PacketFilter),
		CgroupParent:    f.CgroupParent,
		PauseImage:      f.PauseImage,
		RuntimeEndpoint: f.RuntimeEndpoint,
		Paths: &pluginv1.Paths{
			BinDir: f.Paths.BinDir, CarriedCniDir: f.Paths.CarriedCNIDir,
			CniBinDir: f.Paths.CNIBinDir, CniConfDir: f.Paths.CNIConfDir,
			ImagesDir: f.Paths.ImagesDir, CarriedImagesDir: f.Paths.CarriedImagesDir,
			RunDir: f.Paths.RunDir, AgentDir: f.Paths.AgentDir,
		},
	}
}

// reportFromWire returns nil for a report that this host does not know: a newer plugin's
// addition, which means nothing to it.
func reportFromWire(w *pluginv1.Report) (Report, error) {
	switch r := w.GetReport().(type) {
	case *pluginv1.Report_Ready:
		return Ready{}, nil
	case *pluginv1.Report_Degraded:
		reason := text.Clean(r.Degraded.GetReason(), maxReason)
		if strings.TrimSpace(reason) == "" {
			reason = "no reason given"
		}
		return Degraded{Reason: reason}, nil
	case *pluginv1.Report_RuntimeReady:
		endpoint := r.RuntimeReady.GetEndpoint()
		if err := checkEndpoint(endpoint); err != nil {
			return nil, fmt.Errorf("runtime endpoint %.200q: %w", endpoint, err)
		}
		return RuntimeReady{Endpoint: endpoint}, nil
	case *pluginv1.Report_NetworkReady:
		return gatewaysFromWire(r.NetworkReady.GetGateways())
	}
	return nil, nil
}

func checkEndpoint(endpoint string) error {
	socket, ok := strings.CutPrefix(endpoint, "unix://")
	switch {
	case !ok || !path.IsAbs(socket):
		return fmt.Errorf("want unix:// and an absolute path")
	case path.Clean(socket) != socket || socket == "/":
		return fmt.Errorf("want the path of a file, without . or .. in it")
	case len(socket) > maxSocketPath:
		return fmt.Errorf("the path is longer than the %d bytes that a socket's may have", maxSocketPath)
	case strings.ContainsFunc(socket, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }):
		return fmt.Errorf("it holds characters that don't print")
	}
	return nil
}

func gatewaysFromWire(gateways []string) (Report, error) {
	if len(gateways) == 0 || len(gateways) > maxGateways {
		return nil, fmt.Errorf("network ready with %d gateways, want 1 to %d", len(gateways), maxGateways)
	}
	var out NetworkReady
	for _, g := range gateways {
		a, err := netip.ParseAddr(g)
		if err != nil {
			return nil, fmt.Errorf("network ready: gateway %.80q is no IP address", g)
		}
		if a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6() {
			return nil, fmt.Errorf("network ready: gateway %s is no address of a node on a pod network", a)
		}
		out.Gateways = append(out.Gateways, a)
	}
	return out, nil
}

func problemsFromWire(problems []*pluginv1.ConfigProblem) []sdk.ConfigProblem {
	var out []sdk.ConfigProblem
	for n, p := range problems {
		if n == maxProblems {
			out = append(out, sdk.ConfigProblem{Message: fmt.Sprintf("and %d more problems", len(problems)-n)})
			break
		}
		out = append(out, sdk.ConfigProblem{
			Path: text.Clean(p.GetPath(), maxReason), Message: text.Clean(p.GetMessage(), maxReason),
		})
	}
	return out
}
