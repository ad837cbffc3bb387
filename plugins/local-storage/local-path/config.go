package localpath

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/k3m-io/k3m/plugins/local-storage/local-path/pathpattern"
	"github.com/k3m-io/k3m/sdk"
)

// otherNodes is the key of the paths of all nodes that are not named. Names of nodes are
// lower case.
const otherNodes = "DEFAULT"

// config is the component's block of the configuration file.
type config struct {
	// Paths are the directories that hold volumes, by the name of the node; a node without
	// an entry has those of otherNodes, and without that the one directory of
	// --default-local-storage-path. An empty list keeps volumes off a node.
	Paths map[string][]string `json:"paths"`
	// PathPattern is how a volume's directory is called, below one of the paths.
	PathPattern string `json:"pathPattern"`
}

// configSchema is the JSON Schema of config, for `k3m component info` and editors.
const configSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "paths": {
      "description": "directories that hold the volumes of a node, by its name; DEFAULT is for all others. Default: that of --default-local-storage-path",
      "type": "object",
      "additionalProperties": {
        "type": "array", "maxItems": 16,
        "items": {"type": "string", "pattern": "^/", "maxLength": 1024}
      }
    },
    "pathPattern": {
      "description": "path of a volume's directory below one of the paths; fields .PVName, .PVC.Namespace, .PVC.Name, .PVC.UID, .NodeName",
      "type": "string", "minLength": 1, "maxLength": 512,
      "default": "{{ .PVName }}_{{ .PVC.Namespace }}_{{ .PVC.Name }}"
    }
  }
}`

// ValidateConfig implements sdk.ConfigValidator.
func (*plugin) ValidateConfig(_ context.Context, raw json.RawMessage) []sdk.ConfigProblem {
	problems := sdk.CheckConfig(json.RawMessage(configSchema), raw)
	if len(problems) > 0 {
		return problems
	}
	var cfg config
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return []sdk.ConfigProblem{{Message: err.Error()}}
	}
	return cfg.check()
}

// check finds what the schema can't.
func (c config) check() []sdk.ConfigProblem {
	var problems []sdk.ConfigProblem
	if _, err := pathpattern.Parse(cmp.Or(c.PathPattern, pathpattern.Default)); err != nil {
		problems = append(problems, sdk.ConfigProblem{Path: "pathPattern", Message: err.Error()})
	}
	for _, node := range slices.Sorted(maps.Keys(c.Paths)) {
		for i, path := range c.Paths[node] {
			at := fmt.Sprintf("paths.%s[%d]", node, i)
			if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
				problems = append(problems, sdk.ConfigProblem{Path: at, Message: fmt.Sprintf("%q is not the clean, absolute path of a directory below /", path)})
			}
			for _, other := range c.Paths[node][:i] {
				if within(other, path) || within(path, other) {
					problems = append(problems, sdk.ConfigProblem{Path: at, Message: fmt.Sprintf("%q and %q lie in each other", path, other)})
				}
			}
		}
	}
	return problems
}

// pathsOf returns the directories of a node.
func (c config) pathsOf(node, byDefault string) []string {
	if paths, ok := c.Paths[node]; ok {
		return paths
	}
	if paths, ok := c.Paths[otherNodes]; ok {
		return paths
	}
	return []string{byDefault}
}

// within says whether path is dir or lies below it. Both are clean.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
