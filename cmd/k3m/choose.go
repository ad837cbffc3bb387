package main

import (
	"slices"
	"strings"

	"github.com/k3m-io/k3m/components"
)

// chooser works out which lists of `enable` and `disable` make a selection.
type chooser struct {
	catalog         *components.Catalog
	enable, disable []string            // single items, no commas
	defaults        []components.Target // asked for, and on without being enabled
}

func newChooser(catalog *components.Catalog, enable, disable []string) *chooser {
	return &chooser{catalog: catalog, enable: items(enable), disable: items(disable)}
}

// items splits comma-separated texts.
func items(texts []string) []string {
	var all []string
	for _, text := range texts {
		for item := range strings.SplitSeq(text, ",") {
			all = append(all, strings.TrimSpace(item))
		}
	}
	return all
}

// fromCommand is the source of choices in errors.
const fromCommand = "k3m component"

func (c *chooser) selected() (components.Selection, error) {
	return components.Select(c.catalog, components.Choices{Enable: itemChoices("enable", c.enable), Disable: itemChoices("disable", c.disable)})
}

func itemChoices(source string, items []string) []components.Choice {
	var all []components.Choice
	for _, item := range items {
		all = append(all, components.Choice{Source: source, Text: item})
	}
	return all
}

// drop removes the items of a list that unwanted says so of; one that names nothing stays, for
// Select to complain of.
func (c *chooser) drop(list []string, unwanted func(components.Target) bool) []string {
	return slices.DeleteFunc(slices.Clone(list), func(item string) bool {
		t, err := components.ResolveChoice(c.catalog, "", item)
		return err == nil && unwanted(t)
	})
}

// turnOn enables what word names. What was enabled of the same kind before is replaced, unless
// many may run.
func (c *chooser) turnOn(word string) error {
	t, err := components.ResolveChoice(c.catalog, fromCommand+" enable", word)
	if err != nil {
		return err
	}
	c.disable = c.drop(c.disable, func(d components.Target) bool {
		return d.Kind == t.Kind && (d.ID == "" || d.ID == t.ID || t.ID == "")
	})
	if has, err := c.has(t); err == nil && has {
		if t.ID != "" && !c.enables(t) {
			c.defaults = append(c.defaults, t)
		}
		return nil
	}
	kind, _ := components.KindNamed(t.Kind)
	c.enable = c.drop(c.enable, func(e components.Target) bool {
		return e.Kind == t.Kind && (kind.Cardinality != components.Many || e == t)
	})
	// A default that was asked for in the same command must not go for what comes beside it.
	for _, d := range c.defaults {
		if d.Kind == t.Kind && kind.Cardinality == components.Many && !c.enables(d) {
			c.enable = append(c.enable, canonicalItem(d))
		}
	}
	c.enable = append(c.enable, canonicalItem(t))
	return nil
}

// enables tells whether the list of what is enabled names the target.
func (c *chooser) enables(t components.Target) bool {
	return len(c.drop(c.enable, func(e components.Target) bool { return e == t })) < len(c.enable)
}

// turnOff disables what word names, and starts nothing in its place.
func (c *chooser) turnOff(word string) error {
	t, err := components.ResolveChoice(c.catalog, fromCommand+" disable", word)
	if err != nil {
		return err
	}
	before, err := c.selected()
	if err != nil {
		return err
	}
	c.enable = c.drop(c.enable, func(e components.Target) bool {
		return e.Kind == t.Kind && (t.ID == "" || e.ID == t.ID || e.ID == "" && c.isDefault(t.ID))
	})
	// The rest of the kind goes on as before, whether it was enabled or a default.
	if has, err := c.has(t); err != nil || has {
		c.disable = append(c.disable, canonicalItem(t))
	}
	after, err := c.selected()
	if err != nil {
		return err
	}
	for _, e := range after.Entries {
		if !contains(before, e.ID()) {
			c.disable = append(c.disable, e.Info.Kind+"="+e.Info.Name)
		}
	}
	_, err = c.selected()
	return err
}

func (c *chooser) isDefault(id string) bool {
	e, ok := c.catalog.Find(id)
	return ok && e.Default
}

// has tells whether the component, or one of the kind, is selected.
func (c *chooser) has(t components.Target) (bool, error) {
	selection, err := c.selected()
	if err != nil {
		return false, err
	}
	if t.None {
		return slices.Contains(selection.None, t.Kind), nil
	}
	return slices.ContainsFunc(selection.Entries, func(e components.Entry) bool {
		return e.Info.Kind == t.Kind && (t.ID == "" || e.ID() == t.ID)
	}), nil
}

func contains(s components.Selection, id string) bool {
	return slices.ContainsFunc(s.Entries, func(e components.Entry) bool { return e.ID() == id })
}

// canonicalItem is how a target is written down.
func canonicalItem(t components.Target) string {
	switch {
	case t.None:
		return t.Kind + "=" + components.None
	case t.ID == "":
		return t.Kind
	}
	return strings.Replace(t.ID, ".", "=", 1)
}
