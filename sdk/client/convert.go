package client

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
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
	// An EndpointSlice has at most 100 ports.
	maxEndpoints, maxEndpointPorts = 64, 100
	// As many as an Info may declare.
	maxOwned = 256
)

var (
	portName    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	appProtocol = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9./_-]{0,251}[A-Za-z0-9])?$`)
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

		Services: w.GetServices(), ServingCertificate: w.GetServingCertificate(), Labels: w.GetLabels(),
	}
	for _, o := range w.GetObjects() {
		i.Objects = append(i.Objects, o)
	}
	for _, d := range w.GetDeclares() {
		i.Declares = append(i.Declares, sdk.ObjectRef{APIVersion: d.GetApiVersion(), Kind: d.GetKind(), Namespace: d.GetNamespace(), Name: d.GetName()})
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
		ResolvConf:      f.ResolvConf, LocalStoragePath: f.LocalStoragePath,
		KindRank: uint32(max(f.KindRank, 0)),
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
	case *pluginv1.Report_Serving:
		return servingFromWire(r.Serving.GetEndpoints())
	case *pluginv1.Report_Owning:
		return owningFromWire(r.Owning.GetObjects())
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

func servingFromWire(endpoints []*pluginv1.Endpoint) (Report, error) {
	if len(endpoints) > maxEndpoints {
		return nil, fmt.Errorf("serving with %d endpoints, want at most %d", len(endpoints), maxEndpoints)
	}
	var out Serving
	for _, w := range endpoints {
		e, err := endpointFromWire(w)
		if err != nil {
			return nil, fmt.Errorf("serving %.80q: %w", w.GetService(), err)
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	return out, nil
}

// owningFromWire only bounds and copies: Info.CheckOwned judges.
func owningFromWire(objects [][]byte) (Report, error) {
	if len(objects) > maxOwned {
		return nil, fmt.Errorf("owning %d objects, want at most %d", len(objects), maxOwned)
	}
	var out Owning
	for _, o := range objects {
		out.Objects = append(out.Objects, o)
	}
	return out, nil
}

func endpointFromWire(w *pluginv1.Endpoint) (sdk.Endpoint, error) {
	e := sdk.Endpoint{Service: w.GetService()}
	if len(w.GetAddresses()) == 0 || len(w.GetAddresses()) > maxGateways {
		return e, fmt.Errorf("%d addresses, want 1 to %d", len(w.GetAddresses()), maxGateways)
	}
	if len(w.GetPorts()) == 0 || len(w.GetPorts()) > maxEndpointPorts {
		return e, fmt.Errorf("%d ports, want 1 to %d", len(w.GetPorts()), maxEndpointPorts)
	}
	for _, s := range w.GetAddresses() {
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.Zone() != "" || a.Is4In6() {
			return e, fmt.Errorf("%.80q is no address of a node", s)
		}
		if len(e.Addresses) > 0 && a.Is4() != e.Addresses[0].Is4() {
			return e, fmt.Errorf("addresses of both families: make it an endpoint for each")
		}
		e.Addresses = append(e.Addresses, a)
	}
	names := map[string]bool{}
	for _, p := range w.GetPorts() {
		port := sdk.EndpointPort{Name: p.GetName(), Protocol: sdk.Protocol(p.GetProtocol()), Port: uint16(p.GetPort()), AppProtocol: p.GetAppProtocol()}
		switch {
		case p.GetPort() == 0 || p.GetPort() > 65535:
			return e, fmt.Errorf("port %d is not between 1 and 65535", p.GetPort())
		case port.Protocol != sdk.TCP && port.Protocol != sdk.UDP && port.Protocol != sdk.SCTP:
			return e, fmt.Errorf("protocol %.20q is none of TCP, UDP and SCTP", p.GetProtocol())
		case port.Name != "" && !portName.MatchString(port.Name):
			return e, fmt.Errorf("port name %.80q is no DNS label", port.Name)
		case port.AppProtocol != "" && !appProtocol.MatchString(port.AppProtocol):
			return e, fmt.Errorf("application protocol %.80q is malformed", port.AppProtocol)
		case names[port.Name]:
			return e, fmt.Errorf("two ports have the name %q", port.Name)
		}
		names[port.Name] = true
		e.Ports = append(e.Ports, port)
	}
	return e, nil
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
