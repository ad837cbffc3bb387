package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// block is a component's block, of one file or merged.
type block struct {
	source string
	values map[string]any    // nil values take a weaker file's away
	places map[string]string // of keys and list items, by path
}

func parseComponents(parsed *fileValues, n *yaml.Node, place func(*yaml.Node) string) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return &Error{place(n), "`components` takes one block for each component ID, such as `cni.flannel:`"}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, node := n.Content[i], n.Content[i+1]
		if _, ok := parsed.components[key.Value]; ok {
			return &Error{place(key), fmt.Sprintf("component %q has a block already", key.Value)}
		}
		if node.Kind != yaml.MappingNode {
			return &Error{place(node), fmt.Sprintf("the block of component %q is not a list of keys and values", key.Value)}
		}
		b := &block{source: place(key), values: map[string]any{}, places: map[string]string{}}
		if err := node.Decode(&b.values); err != nil {
			return &Error{place(node), oneLine(strings.TrimPrefix(err.Error(), "yaml: "))}
		}
		if _, err := json.Marshal(b.values); err != nil {
			return &Error{place(node), fmt.Sprintf("can't be written as JSON: %v", err)}
		}
		b.find("", node, place, 0)
		parsed.components[key.Value] = b
	}
	return nil
}

// maxDepth bounds how deep places are remembered; below, those above have to do.
const maxDepth = 16

// find remembers where keys and list items stand. What an alias stands for is its own place.
func (b *block) find(path string, n *yaml.Node, place func(*yaml.Node) string, depth int) {
	if depth > maxDepth {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			at := strings.TrimPrefix(path+"."+n.Content[i].Value, ".")
			b.places[at] = place(n.Content[i])
			b.find(at, n.Content[i+1], place, depth+1)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			b.places[at] = place(item)
			b.find(at, item, place, depth+1)
		}
	}
}

// merge lays a stronger file's block over b, key by key.
func (b *block) merge(stronger *block) {
	for key, value := range stronger.values {
		b.forget(key)
		if value == nil {
			delete(b.values, key)
			continue
		}
		b.values[key] = value
	}
	for path, place := range stronger.places {
		if _, ok := b.values[topKey(path)]; ok {
			b.places[path] = place
		}
	}
}

// forget drops the places of a key and what is below it.
func (b *block) forget(key string) {
	maps.DeleteFunc(b.places, func(path, _ string) bool { return topKey(path) == key })
}

func topKey(path string) string {
	if i := strings.IndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return path
}

// blocks are the components' blocks in the form that the rest of k3m takes.
func (f fileValues) blocks() (map[string]Component, error) {
	all := map[string]Component{}
	for _, id := range slices.Sorted(maps.Keys(f.components)) {
		b := f.components[id]
		maps.DeleteFunc(b.values, func(_ string, value any) bool { return value == nil })
		raw, err := json.Marshal(b.values)
		if err != nil {
			return nil, &Error{b.source, fmt.Sprintf("can't be written as JSON: %v", err)}
		}
		all[id] = Component{Raw: raw, Source: b.source, Places: b.places}
	}
	return all, nil
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
