package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
)

func componentConfigureCommand() *cobra.Command {
	var c changeCommand
	var unset []string
	cmd := &cobra.Command{
		Use:   "configure COMPONENT [KEY=VALUE]...",
		Short: "Set configuration keys of a component, now and at every start",
		Long: `Set keys of a component's configuration, or take them away, now and at every start.
"k3m component info COMPONENT" lists the keys. A key within an object is written with
dots (limits.cpu=2); lists and objects are written as in YAML. Nothing is touched unless
the whole configuration is good. A server that runs restarts this component and no other.`,
		Example: `  sudo k3m component configure flannel backend=host-gw mtu=1400
  sudo k3m component configure local-path 'paths={edge-1: [/mnt/ssd]}'
  sudo k3m component configure flannel --unset mtu`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && len(unset) == 0 {
				return usageError{fmt.Errorf("nothing to set: write KEY=VALUE or --unset KEY; `k3m component info %s` lists the keys", args[0])}
			}
			return c.change(cmd, nil, func(d *dropIn, l *localConfig) error {
				id, err := components.ResolveID(args[0], catalogIDs(l.catalog))
				if err != nil {
					return err
				}
				entry, _ := l.catalog.Find(id)
				return configure(d, l, entry, args[1:], unset)
			}, func([]string) bool { return true })
		},
	}
	c.addFlags(cmd)
	cmd.Flags().StringArrayVar(&unset, "unset", nil, "key whose default is to hold again; may be repeated")
	return cmd
}

// configure changes the component's block in k3m's drop-in.
func configure(d *dropIn, l *localConfig, entry components.Entry, settings, unset []string) error {
	keys, err := components.ConfigKeys(entry.Info)
	if err != nil {
		return err
	}
	now, err := l.load(nil)
	if err != nil {
		return err
	}
	merged, err := blockOf(now, entry.ID())
	if err != nil {
		return err
	}
	block, err := d.block(entry.ID())
	if err != nil {
		return err
	}
	for _, setting := range settings {
		path, text, ok := strings.Cut(setting, "=")
		if !ok || path == "" {
			return usageError{fmt.Errorf("%q is not of the form KEY=VALUE", setting)}
		}
		if slices.ContainsFunc(unset, func(u string) bool { return within(u, path) || within(path, u) }) {
			return usageError{fmt.Errorf("%s.%s is both set and unset; give one of them", entry.ID(), path)}
		}
		value, err := typed(entry.ID(), keys, path, text)
		if err != nil {
			return err
		}
		if err := setPath(block, merged, path, value); err != nil {
			return usageError{fmt.Errorf("%s.%s: %w", entry.ID(), path, err)}
		}
	}
	for _, path := range unset {
		if _, err := findKey(entry.ID(), keys, path); err != nil {
			return err
		}
		if err := unsetPath(d, l, entry.ID(), path, block, merged); err != nil {
			return err
		}
	}
	d.tidy()
	return nil
}

// within tells whether a key is another, or lies in it.
func within(path, other string) bool { return path == other || strings.HasPrefix(path, other+".") }

// unsetPath takes a key away from k3m's drop-in, and from weaker files by a null.
func unsetPath(d *dropIn, l *localConfig, id, path string, block, merged map[string]any) error {
	if err := setPath(block, merged, path, nil); err != nil {
		return usageError{fmt.Errorf("%s.%s: %w", id, path, err)}
	}
	if strings.Contains(path, ".") {
		return nil // the object on the way is whole in the drop-in, without the key
	}
	weaker, err := l.load(map[string][]byte{d.path: nil})
	if err != nil {
		return err
	}
	below, err := blockOf(weaker, id)
	if err != nil {
		return err
	}
	if _, ok := below[path]; ok {
		block[path] = nil
	}
	return nil
}

// blockOf is the merged block of a component.
func blockOf(cfg *config.Config, id string) (map[string]any, error) {
	block := map[string]any{}
	if c, ok := cfg.Components[id]; ok {
		if err := json.Unmarshal(c.Raw, &block); err != nil {
			return nil, &config.Error{Source: c.Source, Message: err.Error()}
		}
	}
	return block, nil
}

// findKey is the key that a path on the command line means.
func findKey(id string, keys []components.ConfigKey, path string) (components.ConfigKey, error) {
	var known []string
	for _, k := range keys {
		if k.Path == path || matchesMap(k.Path, path) {
			return k, nil
		}
		if !strings.Contains(k.Path, "[]") {
			known = append(known, k.Path)
		}
	}
	// What the schema leaves open (the keys of a map) is checked as a whole later.
	for _, k := range keys {
		if strings.HasPrefix(path, k.Path+".") && k.Type == "object" {
			return components.ConfigKey{Path: path}, nil
		}
	}
	if len(known) == 0 {
		return components.ConfigKey{}, usageError{fmt.Errorf("%s takes no configuration", id)}
	}
	return components.ConfigKey{}, usageError{fmt.Errorf("%s has no key %q%s; its keys are %s", id, path, config.DidYouMean(path, known), strings.Join(known, ", "))}
}

// matchesMap compares "nodes.*.path" with "nodes.edge-1.path".
func matchesMap(pattern, path string) bool {
	want, have := strings.Split(pattern, "."), strings.Split(path, ".")
	return len(want) == len(have) && slices.EqualFunc(want, have, func(w, h string) bool { return w == "*" || w == h })
}

// typed reads a value as the key's type has it.
func typed(id string, keys []components.ConfigKey, path, text string) (any, error) {
	key, err := findKey(id, keys, path)
	if err != nil {
		return nil, err
	}
	if key.Type == "string" {
		return text, nil
	}
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return nil, usageError{fmt.Errorf("%s.%s: %q can't be read as %s: %s", id, path, text, orDash(key.Type),
			strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "))}
	}
	if value == nil {
		return nil, usageError{fmt.Errorf("%s.%s: the value is empty; --unset %s takes the key away", id, path, path)}
	}
	return value, nil
}
