package components

import (
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk"
)

// checkRequirements finds components that would wait for ever: what they require is not
// selected, or waits for them.
func (s *selector) checkRequirements(sel Selection) {
	for _, e := range sel.Entries {
		for _, r := range e.Info.Requires {
			if r == sdk.RequiresAPI || r == sdk.RequiresNode || slices.Contains(sel.None, string(r)) {
				continue
			}
			if !slices.ContainsFunc(sel.Entries, func(o Entry) bool { return o.Info.Kind == string(r) }) {
				w := s.enabled[e.Info.Kind][e.Info.Name]
				off, isOff := s.disabled[string(r)]
				if w.source == "" && isOff {
					w = off
				}
				s.fail(w, "%s requires a component of kind %q, and none is selected: --enable %s, or --disable %s", e.ID(), r, r, e.ID())
			}
		}
	}
	if loop := requirementLoop(sel.Entries); loop != nil {
		s.fail(wish{}, "these components wait for each other: %s; disable one of them", strings.Join(loop, " -> "))
	}
}

// requirementLoop returns the kinds of a circle of requirements.
func requirementLoop(entries []Entry) []string {
	requires := map[string][]string{}
	for _, e := range entries {
		for _, r := range e.Info.Requires {
			requires[e.Info.Kind] = append(requires[e.Info.Kind], string(r))
		}
	}
	done := map[string]bool{}
	var visit func(kind string, path []string) []string
	visit = func(kind string, path []string) []string {
		if i := slices.Index(path, kind); i >= 0 {
			return append(slices.Clone(path[i:]), kind)
		}
		if done[kind] {
			return nil
		}
		for _, next := range requires[kind] {
			if loop := visit(next, append(path, kind)); loop != nil {
				return loop
			}
		}
		done[kind] = true
		return nil
	}
	for _, e := range entries {
		if loop := visit(e.Info.Kind, nil); loop != nil {
			return loop
		}
	}
	return nil
}
