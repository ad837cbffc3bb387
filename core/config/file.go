package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is the most bytes that a configuration file may have.
const maxFile = 1 << 20

type fileValues struct {
	values     map[string][]Value
	components map[string]Component
}

// readFile reads a configuration file. One that was not asked for by name may be
// missing.
func readFile(name string, mustExist bool) (fileValues, error) {
	text, err := readSmall(name, maxFile)
	if errors.Is(err, fs.ErrNotExist) && !mustExist {
		return fileValues{}, nil
	}
	if err != nil {
		return fileValues{}, &Error{"--config", fmt.Sprintf("read the configuration: %v", err)}
	}
	return parseFile(name, text)
}

// parseFile reads the text of a configuration file; name is for error messages.
func parseFile(name string, text []byte) (fileValues, error) {
	parsed := fileValues{values: map[string][]Value{}, components: map[string]Component{}}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return parsed, nil
		}
		return parsed, &Error{name, strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return parsed, &Error{name, "holds more than one YAML document; a configuration is one"}
	}
	place := func(n *yaml.Node) string { return fmt.Sprintf("%s:%d:%d", name, n.Line, n.Column) }
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		if root.Tag == "!!null" {
			return parsed, nil
		}
		return parsed, &Error{place(root), "a configuration is a list of keys and values, such as `enable: [ingress=nginx]`"}
	}

	known := []string{"components"}
	for _, o := range options {
		if o.name != "config" {
			known = append(known, o.name)
		}
	}
	seen := map[string]string{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if first, ok := seen[key.Value]; ok {
			return parsed, &Error{place(key), fmt.Sprintf("key %q stands at %s already", key.Value, first)}
		}
		seen[key.Value] = place(key)
		if key.Value == "components" {
			if err := parseComponents(&parsed, value, place); err != nil {
				return parsed, err
			}
			continue
		}
		o := lookupOption(key.Value)
		if o == nil || o.name == "config" {
			return parsed, &Error{place(key), fmt.Sprintf("unknown key %q%s", key.Value, DidYouMean(key.Value, known))}
		}
		values, err := scalars(o, value, place)
		if err != nil {
			return parsed, err
		}
		if len(values) > 0 {
			parsed.values[o.name] = values
		}
	}
	return parsed, nil
}

func scalars(o *option, n *yaml.Node, place func(*yaml.Node) string) ([]Value, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, nil
	case n.Kind == yaml.ScalarNode:
		return []Value{{n.Value, place(n)}}, nil
	case n.Kind == yaml.SequenceNode && o.list:
		var values []Value
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return nil, &Error{place(item), fmt.Sprintf("%q takes a list of plain texts", o.name)}
			}
			values = append(values, Value{item.Value, place(item)})
		}
		return values, nil
	case o.list:
		return nil, &Error{place(n), fmt.Sprintf("%q takes a text or a list of texts", o.name)}
	}
	return nil, &Error{place(n), fmt.Sprintf("%q takes one text", o.name)}
}

func parseComponents(parsed *fileValues, n *yaml.Node, place func(*yaml.Node) string) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return &Error{place(n), "`components` takes one block for each component ID, such as `cni.flannel:`"}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, block := n.Content[i], n.Content[i+1]
		if _, ok := parsed.components[key.Value]; ok {
			return &Error{place(key), fmt.Sprintf("component %q has a block already", key.Value)}
		}
		if block.Kind != yaml.MappingNode {
			return &Error{place(block), fmt.Sprintf("the block of component %q is not a list of keys and values", key.Value)}
		}
		var decoded any
		if err := block.Decode(&decoded); err != nil {
			return &Error{place(block), strings.TrimPrefix(err.Error(), "yaml: ")}
		}
		raw, err := json.Marshal(decoded)
		if err != nil {
			return &Error{place(block), fmt.Sprintf("can't be written as JSON: %v", err)}
		}
		parsed.components[key.Value] = Component{Raw: raw, Source: place(key)}
	}
	return nil
}
