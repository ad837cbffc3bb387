package traefik

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk"
)

// config is the component's block of the configuration file; configSchema describes it.
type config struct {
	HTTPPort                  uint16                `json:"httpPort"`
	HTTPSPort                 uint16                `json:"httpsPort"`
	HostPorts                 bool                  `json:"hostPorts"`
	EntryPoints               map[string]entryPoint `json:"entryPoints"`
	LogLevel                  string                `json:"logLevel"`
	AccessLog                 accessLog             `json:"accessLog"`
	ForwardedHeaders          trust                 `json:"forwardedHeaders"`
	ProxyProtocol             trust                 `json:"proxyProtocol"`
	DefaultCertificate        string                `json:"defaultCertificate"`
	RedirectToHTTPS           bool                  `json:"redirectToHTTPS"`
	ACME                      map[string]resolver   `json:"acme"`
	AllowCrossNamespace       bool                  `json:"allowCrossNamespace"`
	AllowExternalNameServices bool                  `json:"allowExternalNameServices"`
	Static                    json.RawMessage       `json:"static"`
}

// entryPoint is one beside those of HTTP and HTTPS.
type entryPoint struct {
	Port     uint16 `json:"port"`
	Listen   uint16 `json:"listen"` // 0 is Port
	Protocol string `json:"protocol"`
	TLS      bool   `json:"tls"`
}

func (e entryPoint) listen() uint16 {
	if e.Listen == 0 {
		return e.Port
	}
	return e.Listen
}

func (e entryPoint) udp() bool { return e.Protocol == "UDP" }

type accessLog struct {
	Enabled bool   `json:"enabled"`
	Format  string `json:"format"`
}

// trust says whose word about the client is believed.
type trust struct {
	TrustedIPs []string `json:"trustedIPs"`
	Insecure   bool     `json:"insecure"`
}

func (t trust) given() bool { return t.Insecure || len(t.TrustedIPs) > 0 }

// resolver is an ACME resolver. Exactly one challenge is set.
type resolver struct {
	Email             string        `json:"email"`
	CAServer          string        `json:"caServer"`
	CACertificates    string        `json:"caCertificates"` // PEM
	KeyType           string        `json:"keyType"`
	PreferredChain    string        `json:"preferredChain"`
	HTTPChallenge     bool          `json:"httpChallenge"`
	TLSChallenge      bool          `json:"tlsChallenge"`
	DNSChallenge      *dnsChallenge `json:"dnsChallenge"`
	CredentialsSecret string        `json:"credentialsSecret"`
}

type dnsChallenge struct {
	Provider  string   `json:"provider"`
	Resolvers []string `json:"resolvers"`
}

// The names of the entry points that are always there.
const (
	webName      = "web"
	secureName   = "websecure"
	internalName = "traefik"
)

// ValidateConfig implements sdk.ConfigValidator.
func (*plugin) ValidateConfig(_ context.Context, raw json.RawMessage) []sdk.ConfigProblem {
	_, problems := parseConfig(raw)
	return problems
}

// parseConfig reads the block; an empty one means all defaults. The returned config is only of use when there are no
// problems.
func parseConfig(raw json.RawMessage) (config, []sdk.ConfigProblem) {
	cfg := config{LogLevel: "warn", AccessLog: accessLog{Format: "common"}}
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		raw = json.RawMessage("{}")
	}
	if problems := sdk.CheckConfig(json.RawMessage(configSchema), raw); len(problems) > 0 {
		return cfg, problems
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return cfg, []sdk.ConfigProblem{{Message: err.Error()}}
	}
	var problems []sdk.ConfigProblem
	problem := func(path, format string, args ...any) {
		problems = append(problems, sdk.ConfigProblem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	cfg.checkPorts(problem)
	for _, t := range []struct {
		path string
		trust
	}{{"forwardedHeaders", cfg.ForwardedHeaders}, {"proxyProtocol", cfg.ProxyProtocol}} {
		for n, text := range t.TrustedIPs {
			if !isAddressOrPrefix(text) {
				problem(fmt.Sprintf("%s.trustedIPs[%d]", t.path, n), "%.60q is neither an IP address nor a CIDR", text)
			}
		}
	}
	email := ""
	for _, name := range slices.Sorted(maps.Keys(cfg.ACME)) {
		r, path := cfg.ACME[name], "acme."+name
		if n := count(r.HTTPChallenge, r.TLSChallenge, r.DNSChallenge != nil); n != 1 {
			problem(path, "%d challenges are set, want exactly one of httpChallenge, tlsChallenge and dnsChallenge", n)
		}
		if r.CredentialsSecret != "" && r.DNSChallenge == nil {
			problem(path+".credentialsSecret", "is only of use with a dnsChallenge")
		}
		if err := checkAuthorities(r.CACertificates); err != nil {
			problem(path+".caCertificates", "%v", err)
		}
		if email != "" && r.Email != email {
			problem(path+".email", "%q differs from %q of another resolver; Traefik has one ACME account", r.Email, email)
		}
		email = r.Email
	}
	if len(problems) > 0 {
		return cfg, problems
	}
	if _, err := cfg.base(); err != nil {
		problems = append(problems, *err)
	}
	return cfg, problems
}

func (c config) checkPorts(problem func(path, format string, args ...any)) {
	if c.HTTPPort != 0 && c.HTTPPort == c.HTTPSPort {
		problem("httpsPort", "%d is httpPort too", c.HTTPSPort)
	}
	ports := map[string]string{} // the path of each port's owner
	listen := map[string]string{fmt.Sprint("TCP ", listenHTTP): "the entry point web", fmt.Sprint("TCP ", listenHTTPS): "the entry point websecure"}
	for port, path := range map[uint16]string{orDefault(c.HTTPPort, 80): "httpPort", orDefault(c.HTTPSPort, 443): "httpsPort"} {
		ports[fmt.Sprint("TCP ", port)] = path
	}
	for _, name := range slices.Sorted(maps.Keys(c.EntryPoints)) {
		e, path := c.EntryPoints[name], "entryPoints."+name
		if slices.Contains([]string{webName, secureName, internalName, "metrics"}, name) {
			problem(path, "this entry point is there already; its ports are httpPort and httpsPort")
			continue
		}
		protocol := "TCP "
		if e.udp() {
			protocol = "UDP "
		}
		if e.udp() && e.TLS {
			problem(path+".tls", "a UDP entry point has no TLS")
		}
		for _, p := range []struct {
			in   map[string]string
			port uint16
			key  string
		}{{ports, e.Port, ".port"}, {listen, e.listen(), ".listen"}} {
			key := fmt.Sprint(protocol, p.port)
			if other, taken := p.in[key]; taken {
				problem(path+p.key, "%s is that of %s", key, other)
			}
			p.in[key] = path
		}
	}
}

func orDefault(port, otherwise uint16) uint16 {
	if port == 0 {
		return otherwise
	}
	return port
}

func count(set ...bool) (n int) {
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}

func isAddressOrPrefix(text string) bool {
	if _, err := netip.ParsePrefix(text); err == nil {
		return true
	}
	addr, err := netip.ParseAddr(text)
	return err == nil && addr.Zone() == ""
}

// secretName splits "namespace/name", which the schema has checked.
func secretName(text string) (namespace, name string) {
	namespace, name, _ = strings.Cut(text, "/")
	return namespace, name
}
