package components

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk"
)

// ConfigKey is one key of a component's configuration, as its schema describes it.
type ConfigKey struct {
	// Path is the key's, "pools[].size" within the items of a list.
	Path string `json:"key"`
	// Type is JSON Schema's, empty for any.
	Type string `json:"type,omitempty"`
	// Default is what holds when the key is not set; nil when the schema does not say.
	Default json.RawMessage `json:"default,omitempty"`
	// Allowed is what the value must be beyond its type: "vxlan, host-gw", "1 to 65535".
	Allowed string `json:"allowed,omitempty"`
	// Description is for people.
	Description string `json:"description,omitempty"`
}

// property is what ConfigKeys reads of a schema.
type property struct {
	Type        string              `json:"type"`
	Title       string              `json:"title"`
	Description string              `json:"description"`
	Default     json.RawMessage     `json:"default"`
	Enum        []json.RawMessage   `json:"enum"`
	Minimum     *json.Number        `json:"minimum"`
	Maximum     *json.Number        `json:"maximum"`
	Pattern     string              `json:"pattern"`
	Properties  map[string]property `json:"properties"`
	Items       *property           `json:"items"`
	// AdditionalProperties is a schema or a boolean.
	AdditionalProperties json.RawMessage `json:"additionalProperties"`
}

// ConfigKeys lists the keys of a component's configuration, sorted; none when it takes none.
func ConfigKeys(info sdk.Info) ([]ConfigKey, error) {
	if info.ConfigSchema == nil {
		return nil, nil
	}
	var root property
	if err := json.Unmarshal(info.ConfigSchema, &root); err != nil {
		return nil, fmt.Errorf("read the configuration schema of component %s: %w", info.ID(), err)
	}
	return root.keys(""), nil
}

func (p property) keys(path string) []ConfigKey {
	var all []ConfigKey
	for _, name := range slices.Sorted(maps.Keys(p.Properties)) {
		child := p.Properties[name]
		all = append(all, child.key(strings.TrimPrefix(path+"."+name, ".")))
		all = append(all, child.below(strings.TrimPrefix(path+"."+name, "."))...)
	}
	return all
}

// below are the keys within a value: of an object, of the items of a list, of a map.
func (p property) below(path string) []ConfigKey {
	all := p.keys(path)
	if p.Items != nil {
		all = append(all, p.Items.below(path+"[]")...)
	}
	var any property
	if json.Unmarshal(p.AdditionalProperties, &any) == nil { // a boolean is no object
		all = append(all, any.below(path+".*")...)
	}
	return all
}

func (p property) key(path string) ConfigKey {
	k := ConfigKey{Path: path, Type: p.Type, Default: p.Default, Description: p.Description}
	if k.Description == "" {
		k.Description = p.Title
	}
	switch {
	case len(p.Enum) > 0:
		var allowed []string
		for _, e := range p.Enum {
			allowed = append(allowed, strings.Trim(string(e), `"`))
		}
		k.Allowed = strings.Join(allowed, ", ")
		if k.Type == "" && !slices.ContainsFunc(p.Enum, func(e json.RawMessage) bool { return !strings.HasPrefix(string(e), `"`) }) {
			k.Type = "string"
		}
	case p.Minimum != nil && p.Maximum != nil:
		k.Allowed = fmt.Sprintf("%s to %s", p.Minimum, p.Maximum)
	case p.Minimum != nil:
		k.Allowed = "at least " + p.Minimum.String()
	case p.Maximum != nil:
		k.Allowed = "at most " + p.Maximum.String()
	case p.Pattern != "":
		k.Allowed = "matches " + p.Pattern
	}
	return k
}
