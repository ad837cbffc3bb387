package settings

import (
	"fmt"
	"maps"
	"slices"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/conf"
	"github.com/k3m-io/k3m/sdk/nearest"
)

// maxSnippet bounds a piece of configuration, in bytes.
const maxSnippet = 64 << 10

// Parse reads the data of ConfigMaps; a later one wins (the component's first, then the
// one that the IngressClass's parameters name). snippets says that the operator allows
// the keys that hold nginx's language.
func Parse(snippets bool, data ...map[string]string) (*Settings, []Problem) {
	merged := map[string]string{}
	for _, one := range data {
		maps.Copy(merged, one)
	}
	set := Default()
	var problems []Problem
	problem := func(key, format string, args ...any) {
		problems = append(problems, Problem{Key: key, Message: fmt.Sprintf(format, args...)})
	}
	for _, key := range slices.Sorted(maps.Keys(merged)) {
		text := merged[key]
		read, known := keys[key]
		switch {
		case known:
			if err := read(set, text); err != nil {
				problem(key, "%v; the default is used", err)
			}
		case snippetKeys[key] != nil && !snippets:
			problem(key, "snippets are off, and this one is left out; only the component's configuration can allow them")
		case snippetKeys[key] != nil:
			if len(text) > maxSnippet {
				problem(key, "%d bytes, want %d at most; the snippet is left out", len(text), maxSnippet)
				continue
			}
			if _, err := conf.Parse(text); err != nil {
				problem(key, "%v; the snippet is left out", err)
				continue
			}
			*snippetKeys[key](set) = text
		case computed[key]:
			problem(key, "this is computed from what is served, and the key is ignored")
		case without[key] != "":
			problem(key, "this is not supported: %s", without[key])
		default:
			problem(key, "unknown key%s", didYouMean(key))
		}
	}
	return set, problems
}

// didYouMean ends a sentence about an unknown key.
func didYouMean(key string) string {
	if near := nearest.To(key, slices.Sorted(maps.Keys(keys))); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; see the table in the component's README"
}

// snippetKeys hold nginx's own language.
var snippetKeys = map[string]func(*Settings) *string{
	"main-snippet":     func(s *Settings) *string { return &s.MainSnippet },
	"http-snippet":     func(s *Settings) *string { return &s.HTTPSnippet },
	"server-snippet":   func(s *Settings) *string { return &s.ServerSnippet },
	"location-snippet": func(s *Settings) *string { return &s.LocationSnippet },
}

// computed are sizes that follow from what is served.
var computed = map[string]bool{
	"server-name-hash-max-size": true, "server-name-hash-bucket-size": true, "map-hash-bucket-size": true,
	"variables-hash-max-size": true, "variables-hash-bucket-size": true, "proxy-headers-hash-max-size": true,
	"proxy-headers-hash-bucket-size": true, "proxy-protocol-real-ip-cidr": true,
}

// without are keys of ingress-nginx that stock nginx can't serve, or this component doesn't.
var without = map[string]string{
	"enable-modsecurity":               "the module is not in the distributions' nginx",
	"enable-owasp-modsecurity-crs":     "the module is not in the distributions' nginx",
	"modsecurity-snippet":              "the module is not in the distributions' nginx",
	"enable-brotli":                    "the module is not in the distributions' nginx; use-gzip is",
	"enable-opentelemetry":             "the module is not in the distributions' nginx",
	"enable-opentracing":               "the module is not in the distributions' nginx",
	"use-geoip":                        "the module is not in the distributions' nginx",
	"use-geoip2":                       "the module is not in the distributions' nginx",
	"add-headers":                      "set headers in the backend, or allow snippets",
	"proxy-set-headers":                "set headers in the backend, or allow snippets",
	"global-auth-url":                  "use the annotation auth-url",
	"ssl-dh-param":                     "nginx uses no own parameters; ECDHE is used",
	"log-format-stream":                "TCP and UDP are not served; use a Service of type LoadBalancer",
	"stream-snippet":                   "TCP and UDP are not served; use a Service of type LoadBalancer",
	"access-log-path":                  "the component's log is its own",
	"http-access-log-path":             "the component's log is its own",
	"error-log-path":                   "the component's log is its own",
	"enable-syslog":                    "the component's log is its own",
	"block-cidrs":                      "use denylist-source-range",
	"block-user-agents":                "refuse them in the backend, or allow snippets",
	"block-referers":                   "refuse them in the backend, or allow snippets",
	"allow-snippet-annotations":        "only the component's configuration can allow snippets",
	"annotations-risk-level":           "annotations are checked one by one",
	"allow-cross-namespace-resources":  "secrets are used in their own namespace alone",
	"strict-validate-path-type":        "paths are checked always",
	"proxy-protocol-header-timeout":    "client-header-timeout holds for it too",
	"proxy-stream-timeout":             "TCP and UDP are not served",
	"proxy-stream-responses":           "TCP and UDP are not served",
	"global-rate-limit-memcached-host": "it needs Lua; use limit-rps",
	"load-balance":                     "requests go round",
	"bind-address":                     "the component chooses its own addresses; see hostPorts",
	"disable-ipv6":                     "the listeners follow the cluster's addresses",
	"disable-ipv6-dns":                 "names are looked up by the cluster's DNS",
}

// Keys are the ConfigMap's keys that are read, sorted.
func Keys() []string {
	names := slices.Collect(maps.Keys(keys))
	names = slices.AppendSeq(names, maps.Keys(snippetKeys))
	slices.Sort(names)
	return names
}

// NotSupported are keys of ingress-nginx that are known and not read.
func NotSupported() []string {
	names := slices.Collect(maps.Keys(computed))
	names = slices.AppendSeq(names, maps.Keys(without))
	slices.Sort(names)
	return names
}
