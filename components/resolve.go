package components

import (
	"fmt"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk/nearest"
)

// ResolveID finds the component that a word on a command line means, among the IDs given: its
// ID, KIND=NAME, a NAME, or a KIND of which there is one. The error is a *SelectionError.
func ResolveID(word string, among []string) (string, error) {
	if id := strings.Replace(word, "=", ".", 1); slices.Contains(among, id) {
		return id, nil
	}
	var words, matches []string
	for _, id := range among {
		kind, name, _ := cutID(id)
		words = append(words, id, kind, name)
		if word == name || word == kind {
			matches = append(matches, id)
		}
	}
	switch len(matches) {
	case 1:
		return matches[0], nil
	case 0:
		if _, ok := KindNamed(word); ok {
			return "", &SelectionError{Message: fmt.Sprintf("nothing of kind %s is installed; there are %s", word, strings.Join(among, ", "))}
		}
		hint := ""
		if near := nearest.To(word, words); near != "" {
			hint = fmt.Sprintf(", did you mean %q?", near)
		}
		return "", &SelectionError{Message: fmt.Sprintf("unknown component %q%s; there are %s", word, hint, strings.Join(among, ", "))}
	}
	return "", &SelectionError{Message: fmt.Sprintf("%q is ambiguous; write one of %s", word, strings.Join(matches, ", "))}
}

// Target is what a Choice names: a component, a kind as a whole (ID is empty), or a kind's
// "none".
type Target struct {
	Kind string
	ID   string
	None bool
}

// ResolveChoice finds what one item of a Choice means, in the words of Select.
func ResolveChoice(c *Catalog, source, text string) (Target, error) {
	s := &selector{catalog: c}
	t, ok := s.resolve(wish{source: source, text: text})
	if !ok {
		return Target{}, s.errs[0]
	}
	target := Target{Kind: t.kind.Name, None: t.none}
	if t.entry != nil {
		target.ID = t.entry.ID()
	}
	return target, nil
}
