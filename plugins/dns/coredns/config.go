package coredns

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
	"github.com/k3m-io/k3m/sdk/nearest"
)

// maxUpstreams is CoreDNS's own limit for one forward.
const maxUpstreams = 15

// config is the component's block of the configuration file.
type config struct {
	// Upstreams are what names outside the cluster are asked from, instead of the host's
	// resolvers: addresses, each with a port or with 53.
	Upstreams []string `json:"upstreams"`
	// CacheSeconds bounds how long an answer from outside the cluster is kept; 0 keeps none.
	CacheSeconds int `json:"cacheSeconds"`
	// CacheEntries bounds how many of them are kept, and as many denials.
	CacheEntries int `json:"cacheEntries"`
	// LogQueries writes a line for each query to the component's log.
	LogQueries bool `json:"logQueries"`

	// upstreams are Upstreams, read.
	upstreams []netip.AddrPort
}

// configSchema is the JSON Schema of config, for `k3m component info` and editors.
const configSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "upstreams": {
      "description": "addresses (with a port, or 53) that names outside the cluster are asked from; by default the resolvers of the host",
      "type": "array", "minItems": 1, "maxItems": 15,
      "items": {"type": "string", "minLength": 2, "maxLength": 60}
    },
    "cacheSeconds": {
      "description": "how long an answer from outside the cluster is kept at most; 0 keeps none",
      "type": "integer", "minimum": 0, "maximum": 3600, "default": 30
    },
    "cacheEntries": {
      "description": "how many answers from outside the cluster are kept, and as many denials",
      "type": "integer", "minimum": 1024, "maximum": 65536, "default": 10000
    },
    "logQueries": {
      "description": "write a line for each query to the component's log",
      "type": "boolean", "default": false
    }
  }
}`

// The bounds of the schema.
const (
	maxCacheSeconds = 3600
	minCacheEntries = 1024
	maxCacheEntries = 65536
)

// ValidateConfig implements sdk.ConfigValidator. It names every mistake, not only the
// first.
func (*plugin) ValidateConfig(_ context.Context, raw json.RawMessage) []sdk.ConfigProblem {
	_, problems := parseConfig(raw)
	return problems
}

// parseConfig reads the block; an empty one means all defaults. The returned config is
// only of use when there are no problems.
func parseConfig(raw json.RawMessage) (config, []sdk.ConfigProblem) {
	cfg := config{CacheSeconds: 30, CacheEntries: 10000}
	var problems []sdk.ConfigProblem
	problem := func(path, format string, args ...any) {
		problems = append(problems, sdk.ConfigProblem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	targets := map[string]struct {
		into any
		kind string
	}{
		"upstreams":    {&cfg.Upstreams, "list of addresses"},
		"cacheSeconds": {&cfg.CacheSeconds, "whole number"},
		"cacheEntries": {&cfg.CacheEntries, "whole number"},
		"logQueries":   {&cfg.LogQueries, "boolean"},
	}
	keys := slices.Sorted(maps.Keys(targets))
	var given map[string]json.RawMessage
	if raw = bytes.TrimSpace(raw); len(raw) > 0 {
		if err := json.Unmarshal(raw, &given); err != nil {
			problem("", "want an object with the keys %s: %v", strings.Join(keys, ", "), err)
			return cfg, problems
		}
	}
	good := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		target, known := targets[key]
		switch {
		case !known:
			problem(key, "unknown key%s", allowed(key, keys))
		case string(given[key]) == "null" || json.Unmarshal(given[key], target.into) != nil:
			// null would leave the default in place without a word.
			problem(key, "%.80s is not a %s", given[key], target.kind)
		default:
			good[key] = true
		}
	}
	if good["cacheSeconds"] && (cfg.CacheSeconds < 0 || cfg.CacheSeconds > maxCacheSeconds) {
		problem("cacheSeconds", "%d is outside 0 to %d", cfg.CacheSeconds, maxCacheSeconds)
	}
	if good["cacheEntries"] && (cfg.CacheEntries < minCacheEntries || cfg.CacheEntries > maxCacheEntries) {
		problem("cacheEntries", "%d is outside %d to %d", cfg.CacheEntries, minCacheEntries, maxCacheEntries)
	}
	if good["upstreams"] {
		if n := len(cfg.Upstreams); n < 1 || n > maxUpstreams {
			problem("upstreams", "%d addresses, want 1 to %d; leave the key out for the host's resolvers", n, maxUpstreams)
		}
		for n, text := range cfg.Upstreams {
			upstream, err := parseUpstream(text)
			if err != nil {
				problem(fmt.Sprintf("upstreams[%d]", n), "%v", err)
				continue
			}
			cfg.upstreams = append(cfg.upstreams, upstream)
		}
	}
	slices.SortStableFunc(problems, func(a, b sdk.ConfigProblem) int { return strings.Compare(a.Path, b.Path) })
	return cfg, problems
}

// parseUpstream reads "192.0.2.53", "192.0.2.53:5353" or "[2001:db8::53]:5353".
func parseUpstream(text string) (netip.AddrPort, error) {
	upstream, err := netip.ParseAddrPort(text)
	if err != nil {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(text); err == nil {
			upstream = netip.AddrPortFrom(addr, dnsPort)
		}
	}
	switch addr := upstream.Addr(); {
	case err != nil:
		return upstream, fmt.Errorf("%.60q is not an IP address, nor one with a port (a name could not be looked up)", text)
	case addr.IsUnspecified() || addr.IsMulticast() || upstream.Port() == 0:
		return upstream, fmt.Errorf("%s can't be asked", text)
	case addr.Zone() != "":
		return upstream, fmt.Errorf("%s has a zone, which CoreDNS can't forward to", text)
	}
	return netip.AddrPortFrom(upstream.Addr().Unmap(), upstream.Port()), nil
}

// allowed ends a sentence about a wrong word: with the one that was probably meant, or
// with all that there are.
func allowed(word string, words []string) string {
	if near := nearest.To(word, words); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; allowed are " + strings.Join(words, ", ")
}
