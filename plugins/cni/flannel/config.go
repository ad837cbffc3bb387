package flannel

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nearest"
)

// The backends: how packets get from one node to another.
const (
	backendVXLAN     = "vxlan"
	backendHostGW    = "host-gw"
	backendWireGuard = "wireguard"
)

var backends = []string{backendVXLAN, backendHostGW, backendWireGuard}

// Default ports and network identifier. 8472 is what Linux itself uses for vxlan (not
// the 4789 of RFC 7348), 51820 what wg-quick uses.
const (
	defaultVXLANPort     = 8472
	defaultWireGuardPort = 51820
	defaultVNI           = 1
)

// config is the component's block of the configuration file. Zero values mean the
// defaults.
type config struct {
	// Backend is one of backends.
	Backend string `json:"backend"`
	// Interface is the network interface between the nodes; by default the one that
	// has the node's address.
	Interface string `json:"interface"`
	// MTU is that of the pods' interfaces, in bytes; by default what the interface
	// between the nodes leaves after the backend's headers.
	MTU int `json:"mtu"`
	// Port is the UDP port of vxlan or wireguard.
	Port int `json:"port"`
	// VNI is vxlan's network identifier.
	VNI int `json:"vni"`
}

// configSchema is the JSON Schema of config, for `k3m component info` and editors.
const configSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "backend": {
      "description": "how packets get from one node to another",
      "enum": ["vxlan", "host-gw", "wireguard"],
      "default": "vxlan"
    },
    "interface": {
      "description": "the network interface between the nodes; by default the one that has the node's address",
      "type": "string", "minLength": 1, "maxLength": 15
    },
    "mtu": {
      "description": "MTU of the pods' interfaces; by default what the interface between the nodes leaves after the backend's headers",
      "type": "integer", "minimum": 576, "maximum": 65535
    },
    "port": {
      "description": "UDP port of vxlan (default 8472) or wireguard (default 51820; 51821 for IPv6)",
      "type": "integer", "minimum": 1, "maximum": 65534
    },
    "vni": {
      "description": "network identifier of vxlan",
      "type": "integer", "minimum": 1, "maximum": 16777215, "default": 1
    }
  }
}`

// ValidateConfig implements sdk.ConfigValidator. It names every mistake, not only the
// first.
func (*plugin) ValidateConfig(_ context.Context, raw json.RawMessage) []sdk.ConfigProblem {
	_, problems := parseConfig(raw)
	return problems
}

// parseConfig reads the block; an empty or null one means all defaults. The returned
// config has its defaults filled in, and is only of use when there are no problems.
func parseConfig(raw json.RawMessage) (config, []sdk.ConfigProblem) {
	cfg := config{Backend: backendVXLAN}
	var problems []sdk.ConfigProblem
	problem := func(path, format string, args ...any) {
		problems = append(problems, sdk.ConfigProblem{Path: path, Message: fmt.Sprintf(format, args...)})
	}

	targets := map[string]any{
		"backend": &cfg.Backend, "interface": &cfg.Interface,
		"mtu": &cfg.MTU, "port": &cfg.Port, "vni": &cfg.VNI,
	}
	keys := slices.Sorted(maps.Keys(targets))
	var given map[string]json.RawMessage
	if raw = bytes.TrimSpace(raw); len(raw) > 0 {
		if err := json.Unmarshal(raw, &given); err != nil {
			problem("", "want an object with the keys %s: %v", strings.Join(keys, ", "), err)
			return cfg, problems
		}
	}
	bad := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		target, known := targets[key]
		if !known {
			problem(key, "unknown key%s", allowed(key, keys))
			continue
		}
		// null would leave the default in place without a word.
		if err := json.Unmarshal(given[key], target); err != nil || string(given[key]) == "null" {
			problem(key, "%s is not a %s", given[key], kindOf(target))
			bad[key] = true
		}
	}
	has := func(key string) bool { _, ok := given[key]; return ok && !bad[key] }

	if has("backend") && !slices.Contains(backends, cfg.Backend) {
		problem("backend", "%q is not a backend%s", cfg.Backend, allowed(cfg.Backend, backends))
		bad["backend"] = true
	}
	if has("interface") && !interfaceName(cfg.Interface) {
		problem("interface", "%q is not the name of a network interface (1 to 15 characters, no space or slash)", cfg.Interface)
	}
	if has("mtu") && (cfg.MTU < 576 || cfg.MTU > 65535) {
		problem("mtu", "%d is outside 576 to 65535", cfg.MTU)
	}
	if has("port") && (cfg.Port < 1 || cfg.Port > 65534) {
		problem("port", "%d is outside 1 to 65534", cfg.Port)
	}
	if has("vni") && (cfg.VNI < 1 || cfg.VNI > 1<<24-1) {
		problem("vni", "%d is outside 1 to 16777215", cfg.VNI)
	}
	if !bad["backend"] {
		if has("port") && cfg.Backend == backendHostGW {
			problem("port", "backend host-gw has no port; leave it out, or choose vxlan or wireguard")
		}
		if has("vni") && cfg.Backend != backendVXLAN {
			problem("vni", "backend %s has no network identifier; leave it out, or choose vxlan", cfg.Backend)
		}
	}

	slices.SortStableFunc(problems, func(a, b sdk.ConfigProblem) int { return strings.Compare(a.Path, b.Path) })

	switch {
	case cfg.Port != 0:
	case cfg.Backend == backendVXLAN:
		cfg.Port = defaultVXLANPort
	case cfg.Backend == backendWireGuard:
		cfg.Port = defaultWireGuardPort
	}
	if cfg.VNI == 0 && cfg.Backend == backendVXLAN {
		cfg.VNI = defaultVNI
	}
	return cfg, problems
}

// allowed ends a sentence about a wrong word: with the one that was probably meant, or
// with all that there are.
func allowed(word string, words []string) string {
	if near := nearest.To(word, words); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; allowed are " + strings.Join(words, ", ")
}

func kindOf(target any) string {
	if _, ok := target.(*int); ok {
		return "whole number"
	}
	return "string"
}

// interfaceName says whether the kernel would take name (dev_valid_name).
func interfaceName(name string) bool {
	return len(name) >= 1 && len(name) <= 15 && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == ':' || r <= ' ' || r == 0x7f })
}
