package nodeip

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/k3m-io/k3m/sdk"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The choices of the key addresses.
const (
	preferExternal = "prefer-external"
	internalOnly   = "internal"
	allAddresses   = "all"
)

// config is the component's block of the configuration file.
type config struct {
	// Addresses says which of a node's addresses Services get.
	Addresses string `json:"addresses"`
	// DefaultClass: Services without a loadBalancerClass are the component's, too.
	DefaultClass bool `json:"defaultClass"`
	// DefaultPool is that of Services that name none; empty is all nodes.
	DefaultPool string `json:"defaultPool"`
	// ReservedPorts are more ports that no Service may have: 2222, "5353/udp".
	ReservedPorts []any `json:"reservedPorts"`

	reserved []port // ReservedPorts, parsed
}

// configSchema is the JSON Schema of config, for `k3m component info` and editors.
const configSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "addresses": {
      "description": "which addresses of a node Services get: its external ones, or the internal ones where it has none; the internal ones; or both",
      "enum": ["prefer-external", "internal", "all"],
      "default": "prefer-external"
    },
    "defaultClass": {
      "description": "serve Services that name no loadBalancerClass, too",
      "type": "boolean",
      "default": true
    },
    "defaultPool": {
      "description": "the pool of nodes (label svc.k3m.io/lb-pool) for Services that name none; by default all nodes",
      "type": "string", "maxLength": 63
    },
    "reservedPorts": {
      "description": "ports that no Service may have, beside those that the node needs: 2222 (TCP), or \"5353/udp\"",
      "type": "array", "maxItems": 256
    }
  }
}`

// parseConfig reads a configuration block; a nil one means all defaults. The returned
// config is only of use when there are no problems.
func parseConfig(raw json.RawMessage) (config, []sdk.ConfigProblem) {
	cfg := config{Addresses: preferExternal, DefaultClass: true}
	if len(raw) == 0 {
		return cfg, nil
	}
	if problems := sdk.CheckConfig(json.RawMessage(configSchema), raw); len(problems) > 0 {
		return cfg, problems
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return cfg, []sdk.ConfigProblem{{Message: err.Error()}}
	}
	var problems []sdk.ConfigProblem
	if faults := validation.IsValidLabelValue(cfg.DefaultPool); len(faults) > 0 {
		problems = append(problems, sdk.ConfigProblem{Path: "defaultPool",
			Message: fmt.Sprintf("%q is not the value of a label: %s", cfg.DefaultPool, strings.Join(faults, "; "))})
	}
	for i, value := range cfg.ReservedPorts {
		p, ok := parsePort(value)
		if !ok {
			problems = append(problems, sdk.ConfigProblem{Path: fmt.Sprintf("reservedPorts[%d]", i),
				Message: fmt.Sprintf(`%v is not a port: want 1 to 65535, with "/udp" or "/sctp" for another protocol than TCP`, value)})
			continue
		}
		cfg.reserved = append(cfg.reserved, p)
	}
	return cfg, problems
}

// parsePort reads 2222, "2222" or "5353/udp".
func parsePort(value any) (port, bool) {
	var text string
	switch value := value.(type) {
	case float64:
		text = strconv.FormatFloat(value, 'f', -1, 64)
	case string:
		text = value
	default:
		return port{}, false
	}
	number, protocol, named := strings.Cut(text, "/")
	if !named {
		protocol = "tcp"
	}
	protocol = strings.ToUpper(protocol)
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || !slices.Contains([]string{"TCP", "UDP", "SCTP"}, protocol) {
		return port{}, false
	}
	return port{uint16(n), protocol}, true
}
