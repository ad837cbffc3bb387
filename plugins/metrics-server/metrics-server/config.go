package metricsserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nearest"
)

const (
	defaultResolution = "15s"
	// minResolution is metrics-server's own: a container's first figures are worked out
	// from its start when it is between 10 s and the resolution old.
	minResolution = 10 * time.Second
	// maxResolution keeps the figures fresh enough for an autoscaler, whose answers are
	// minutes apart.
	maxResolution = 5 * time.Minute
	// defaultPort is next to the kubelet's, which has 10250 on all addresses.
	defaultPort = 10251
)

// config is the component's block of the configuration file.
type config struct {
	// Resolution is how often the kubelets are asked, as a Go duration.
	Resolution string `json:"resolution"`
	// Port is where the API is served, on the node's pod gateway.
	Port int `json:"port"`
}

// resolution is Resolution, which was checked.
func (c config) resolution() time.Duration {
	d, _ := time.ParseDuration(c.Resolution)
	return d
}

// configSchema is the JSON Schema of config, for `k3m component info` and editors.
const configSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "resolution": {
      "description": "how often the nodes are asked for their figures, 10s to 5m",
      "type": "string", "pattern": "^[0-9]+(s|m|m[0-9]+s)$", "default": "15s"
    },
    "port": {
      "description": "TCP port on the node's pod gateway that the metrics API is served on",
      "type": "integer", "minimum": 1024, "maximum": 65535, "default": 10251
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
// config is only of use when there are no problems.
func parseConfig(raw json.RawMessage) (config, []sdk.ConfigProblem) {
	cfg := config{Resolution: defaultResolution, Port: defaultPort}
	var problems []sdk.ConfigProblem
	problem := func(path, format string, args ...any) {
		problems = append(problems, sdk.ConfigProblem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	targets := map[string]any{"port": &cfg.Port, "resolution": &cfg.Resolution}
	keys := slices.Sorted(maps.Keys(targets))
	var given map[string]json.RawMessage
	if raw = bytes.TrimSpace(raw); len(raw) > 0 {
		if err := json.Unmarshal(raw, &given); err != nil {
			problem("", "want an object with the keys %s: %v", strings.Join(keys, ", "), err)
			return cfg, problems
		}
	}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		target, known := targets[key]
		if !known {
			problem(key, "unknown key%s", allowed(key, keys))
			continue
		}
		// null would leave the default in place without a word.
		if err := json.Unmarshal(given[key], target); err != nil || string(given[key]) == "null" {
			problem(key, "%s is not a %s", given[key], kindOf(target))
			continue
		}
		switch key {
		case "port":
			if cfg.Port < 1024 || cfg.Port > 65535 {
				problem(key, "%d is outside 1024 to 65535", cfg.Port)
			}
		case "resolution":
			d, err := time.ParseDuration(cfg.Resolution)
			if err != nil {
				problem(key, "%q is not a duration; write 15s or 1m", cfg.Resolution)
			} else if d < minResolution || d > maxResolution {
				problem(key, "%s is outside 10s to 5m", cfg.Resolution)
			}
		}
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
