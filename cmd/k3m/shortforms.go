package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/registries"
)

// The components that options are short forms for.
const (
	flannelID    = "cni.flannel"
	containerdID = "runtime.containerd"
)

// shortForm is an option that sets a key of a component's block.
type shortForm struct {
	option config.Value
	id     string
	key    string
	value  any // of the key
}

// shortForms are those that were given.
func shortForms(cfg *config.Config) []shortForm {
	all := []shortForm{
		{cfg.FlannelBackend, flannelID, "backend", cfg.FlannelBackend.Text},
		{cfg.Snapshotter, containerdID, "snapshotter", cfg.Snapshotter.Text},
		{cfg.PrivateRegistry, containerdID, "registries", cfg.PrivateRegistry.Text},
		{cfg.DisableDefaultRegistryEndpoint, containerdID, "disableDefaultRegistryEndpoint", cfg.DisableDefaultRegistryEndpoint.Text == "true"},
	}
	return slices.DeleteFunc(all, func(s shortForm) bool { return s.option.Text == "" })
}

// add puts the option's value into the block of its component.
func (s shortForm) add(cfg *config.Config, selection components.Selection, configs map[string]json.RawMessage) error {
	selected := slices.ContainsFunc(selection.Entries, func(e components.Entry) bool { return e.ID() == s.id })
	if !selected {
		return &config.Error{Source: s.option.Source, Message: "sets the " + s.key + " of " + s.id + ", which is not among the chosen components"}
	}
	block := map[string]any{}
	if raw, ok := configs[s.id]; ok {
		if err := json.Unmarshal(raw, &block); err != nil {
			return &config.Error{Source: cfg.Components[s.id].Source, Message: err.Error()}
		}
	}
	if other, ok := block[s.key]; ok && other != s.value {
		return &config.Error{Source: s.option.Source, Message: fmt.Sprintf("says %q, but %s is %v at %s; keep one of them",
			s.option.Text, s.key, other, cfg.Components[s.id].At(s.key))}
	}
	block[s.key] = s.value
	raw, err := json.Marshal(block)
	if err != nil {
		return err
	}
	configs[s.id] = raw
	return nil
}

// checkRegistries reads registries.yaml, so that a mistake there is told before anything
// starts. The component reads it anew, also when it changes.
func checkRegistries(cfg *config.Config, selection components.Selection, configs map[string]json.RawMessage) error {
	if !slices.ContainsFunc(selection.Entries, func(e components.Entry) bool { return e.ID() == containerdID }) {
		return nil
	}
	var block struct {
		Registries string `json:"registries"`
	}
	if raw, ok := configs[containerdID]; ok {
		if err := json.Unmarshal(raw, &block); err != nil {
			return err
		}
	}
	_, err := registries.Read(cmp.Or(block.Registries, registries.DefaultFile))
	var mistake *registries.Error
	switch {
	case errors.As(err, &mistake):
		return &config.Error{Source: mistake.Source, Message: mistake.Message}
	case err == nil || registries.IsNotExist(err) && block.Registries == "":
		return nil
	}
	source := cfg.PrivateRegistry.Source
	if source == "" {
		source = cfg.Components[containerdID].At("registries")
	}
	return &config.Error{Source: cmp.Or(source, registries.DefaultFile), Message: err.Error()}
}
