package components

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nearest"
)

// Choice is one thing that a user wrote to enable or to disable components: the value of
// a flag or an entry of a list in the configuration file. Text may hold several, comma
// separated, each in one of the forms
//
//	ingress=nginx   ingress.nginx   nginx   ingress   cni=none
type Choice struct {
	// Source is where it was written: "--enable" or "/etc/k3m/config.yaml:3".
	Source string
	Text   string
}

// Choices are all that a user chose.
type Choices struct {
	Enable, Disable []Choice
}

// Selection is what a node runs.
type Selection struct {
	// Entries are the selected components, by kind. Those of one kind are in the order in which
	// they were enabled, and defaults by name.
	Entries []Entry
	// None lists the kinds that are left to the user: "cni".
	None []string
}

// Infos returns the infos of the selected components.
func (s Selection) Infos() []sdk.Info {
	infos := make([]sdk.Info, len(s.Entries))
	for i, e := range s.Entries {
		infos[i] = e.Info
	}
	return infos
}

// OfScope keeps the components that run on an agent (server false) or a server.
func (s Selection) OfScope(server bool) Selection {
	s.Entries = slices.DeleteFunc(slices.Clone(s.Entries), func(e Entry) bool {
		return !server && e.Info.Scope == sdk.ServerScope
	})
	return s
}

// SelectionError is one mistake in Choices, in a sentence that says where it was made,
// what was found, what is allowed, and what was probably meant.
type SelectionError struct {
	// Source is the Choice's, empty if the mistake is in what was not said.
	Source  string
	Message string
}

func (e *SelectionError) Error() string {
	if e.Source == "" {
		return e.Message
	}
	return e.Source + ": " + e.Message
}

// ExitCode is the exit code of a process that was started with a wrong selection.
func (e *SelectionError) ExitCode() int { return 2 }

// Select decides what a node runs. What the user enables of a kind replaces the defaults
// of that kind. All mistakes are reported, joined, each a *SelectionError.
func Select(c *Catalog, choices Choices) (Selection, error) {
	s := &selector{catalog: c, enabled: map[string]map[string]wish{}, none: map[string]wish{}, disabled: map[string]wish{}}
	for _, choice := range choices.Enable {
		s.each(choice, s.enable)
	}
	for _, choice := range choices.Disable {
		s.each(choice, s.disable)
	}
	result := s.decide()
	if len(s.errs) == 0 {
		s.checkRequirements(result)
	}
	return result, errors.Join(s.errs...)
}

// wish is one item of a Choice.
type wish struct {
	source, text string
	place        int // among what was wished for of a kind; 0 is the first
}

func (w wish) String() string { return fmt.Sprintf("%s %s", w.source, w.text) }

type selector struct {
	catalog  *Catalog
	enabled  map[string]map[string]wish // kind, name
	none     map[string]wish            // kind
	disabled map[string]wish            // kind or ID
	errs     []error
}

func (s *selector) fail(w wish, format string, args ...any) {
	s.errs = append(s.errs, &SelectionError{Source: w.source, Message: fmt.Sprintf(format, args...)})
}

func (s *selector) each(choice Choice, do func(wish)) {
	for text := range strings.SplitSeq(choice.Text, ",") {
		w := wish{source: choice.Source, text: strings.TrimSpace(text)}
		if w.text == "" {
			s.fail(w, "an empty name in %q; write kind=name, a name or a kind", choice.Text)
			continue
		}
		do(w)
	}
}

func (s *selector) enable(w wish) {
	t, ok := s.resolve(w)
	kind := t.kind
	switch {
	case !ok:
	case t.entry != nil:
		s.want(w, *t.entry)
	case t.none:
		if kind.Cardinality == ExactlyOne && kind.NoneHint == "" {
			s.fail(w, "a node can't be without a %s; choose one of %s", kind.Name, names(s.catalog.ofKind(kind.Name)))
			return
		}
		s.none[kind.Name] = w
	default: // a kind: its default, or the only one there is
		candidates := slices.DeleteFunc(s.catalog.ofKind(kind.Name), func(e Entry) bool { return !e.Default })
		if len(candidates) == 0 {
			candidates = s.catalog.ofKind(kind.Name)
		}
		switch {
		case len(candidates) == 0:
			s.fail(w, "this distribution has no component of kind %q; `k3m component install` adds one", kind.Name)
		case len(candidates) > 1 && kind.Cardinality != Many || len(candidates) > 1 && !candidates[0].Default:
			s.fail(w, "several components are of kind %q: say which one of %s, as in %s=%s",
				kind.Name, names(candidates), kind.Name, candidates[0].Info.Name)
		default:
			for _, e := range candidates {
				s.want(w, e)
			}
		}
	}
}

func (s *selector) want(w wish, e Entry) {
	if s.enabled[e.Info.Kind] == nil {
		s.enabled[e.Info.Kind] = map[string]wish{}
	}
	if _, again := s.enabled[e.Info.Kind][e.Info.Name]; !again {
		w.place = len(s.enabled[e.Info.Kind])
		s.enabled[e.Info.Kind][e.Info.Name] = w
	}
}

func (s *selector) disable(w wish) {
	t, ok := s.resolve(w)
	switch {
	case !ok:
	case t.entry != nil:
		s.disabled[t.entry.ID()] = w
	case t.none:
		s.fail(w, "%q can't be disabled, it is what is left without a component; to have no %s, write --disable %s", w.text, t.kind.Name, t.kind.Name)
	default:
		s.disabled[t.kind.Name] = w
	}
}

// decide applies defaults and the rules of the kinds.
func (s *selector) decide() Selection {
	var result Selection
	for _, kind := range kinds {
		chosen := s.chosen(kind)
		off, kindOff := s.disabled[kind.Name]
		none, isNone := s.none[kind.Name]
		wishes := s.enabled[kind.Name]

		if isNone && len(wishes) > 0 {
			s.fail(none, "%q contradicts %s", none.text, first(wishes))
		}
		if kindOff && len(wishes) > 0 {
			s.fail(off, "disables %q, of which %s enables one; leave one of the two out", kind.Name, first(wishes))
			continue
		}
		var kept []Entry
		contradiction := false
		for _, e := range chosen {
			if off, isOff := s.disabled[e.ID()]; !isOff {
				kept = append(kept, e)
			} else if w, wanted := wishes[e.Info.Name]; wanted {
				s.fail(off, "disables %s, which %s enables; leave one of the two out", e.ID(), w)
				contradiction = true
			}
		}
		if kindOff || isNone {
			kept = nil
		}
		if len(kept) > 1 && kind.Cardinality != Many {
			s.tooMany(kind, kept, wishes)
		}
		if len(kept) == 0 && kind.Cardinality == ExactlyOne && !isNone && !contradiction {
			s.tooFew(kind, chosen)
		}
		if isNone && kind.Cardinality == ExactlyOne {
			result.None = append(result.None, kind.Name)
		}
		result.Entries = append(result.Entries, kept...)
	}
	return result
}

// chosen returns what is enabled of a kind, in that order, or its defaults.
func (s *selector) chosen(kind Kind) []Entry {
	wishes := s.enabled[kind.Name]
	chosen := slices.DeleteFunc(s.catalog.ofKind(kind.Name), func(e Entry) bool {
		_, wanted := wishes[e.Info.Name]
		return !wanted && (len(wishes) > 0 || !e.Default)
	})
	slices.SortStableFunc(chosen, func(a, b Entry) int { return cmp.Compare(wishes[a.Info.Name].place, wishes[b.Info.Name].place) })
	return chosen
}

func (s *selector) tooMany(kind Kind, kept []Entry, wishes map[string]wish) {
	w := wish{}
	var said []string
	for _, e := range kept {
		if where, ok := wishes[e.Info.Name]; ok {
			said, w.source = append(said, where.String()), where.source
		} else {
			said = append(said, e.ID()+" (a default)")
		}
	}
	s.fail(w, "%s of kind %q may run on a node, and %d are enabled: %s; leave all but one out",
		kind.Cardinality, kind.Name, len(kept), strings.Join(said, ", "))
}

func (s *selector) tooFew(kind Kind, chosen []Entry) {
	w, disabled := s.disabled[kind.Name]
	for _, e := range chosen {
		if off, ok := s.disabled[e.ID()]; ok {
			w, disabled = off, true
		}
	}
	others := slices.DeleteFunc(s.catalog.ofKind(kind.Name), func(e Entry) bool {
		return slices.ContainsFunc(chosen, func(c Entry) bool { return c.ID() == e.ID() })
	})
	hint := fmt.Sprintf("`k3m component install` adds another %s", kind.Name)
	if len(others) > 0 {
		hint = fmt.Sprintf("to have another one, --enable %s=%s", kind.Name, others[0].Info.Name)
	}
	if kind.NoneHint != "" {
		hint += fmt.Sprintf("; --enable %s=none %s", kind.Name, kind.NoneHint)
	}
	if disabled {
		s.fail(w, "%q can't be disabled: a node needs a %s; %s", w.text, kind.Name, hint)
	} else {
		s.fail(w, "no %s is selected, and a node needs one; %s", kind.Name, hint)
	}
}

// first returns one of several wishes, always the same.
func first(wishes map[string]wish) wish {
	var all []wish
	for _, w := range wishes {
		all = append(all, w)
	}
	return slices.MinFunc(all, func(a, b wish) int { return strings.Compare(a.String(), b.String()) })
}

// target is what an item names: a component, or a kind as a whole, or a kind's "none".
type target struct {
	kind  Kind
	entry *Entry
	none  bool
}

func (s *selector) resolve(w wish) (target, bool) {
	for _, separator := range []string{"=", "."} {
		if kind, name, pair := strings.Cut(w.text, separator); pair {
			return s.resolvePair(w, strings.TrimSpace(kind), strings.TrimSpace(name))
		}
	}
	if kind, ok := KindNamed(w.text); ok {
		return target{kind: kind}, true
	}
	matches := slices.DeleteFunc(s.catalog.Entries(), func(e Entry) bool { return e.Info.Name != w.text })
	switch len(matches) {
	case 1:
		kind, _ := KindNamed(matches[0].Info.Kind)
		return target{kind: kind, entry: &matches[0]}, true
	case 0:
		allowed := KindNames()
		for _, e := range s.catalog.Entries() {
			allowed = append(allowed, e.Info.Name)
		}
		s.fail(w, "unknown component or kind %q%s; components are %s; kinds are %s", w.text, didYouMean(w.text, allowed),
			names(s.catalog.Entries()), strings.Join(KindNames(), ", "))
	default:
		s.fail(w, "%q is ambiguous: write one of %s", w.text, ids(matches))
	}
	return target{}, false
}

func (s *selector) resolvePair(w wish, kindName, name string) (target, bool) {
	kind, ok := KindNamed(kindName)
	if !ok {
		s.fail(w, "unknown kind %q in %q%s; kinds are %s", kindName, w.text, didYouMean(kindName, KindNames()), strings.Join(KindNames(), ", "))
		return target{}, false
	}
	if name == None {
		return target{kind: kind, none: true}, true
	}
	if e, ok := s.catalog.Find(kindName + "." + name); ok {
		return target{kind: kind, entry: &e}, true
	}
	candidates := s.catalog.ofKind(kindName)
	hint := fmt.Sprintf("this k3m has none of kind %q; `k3m component install` adds one", kindName)
	var allowed []string
	if len(candidates) > 0 {
		hint = fmt.Sprintf("of kind %q there is %s", kindName, names(candidates))
		for _, e := range candidates {
			allowed = append(allowed, e.Info.Name)
		}
	}
	s.fail(w, "unknown component %q in %q%s; %s", name, w.text, didYouMean(name, allowed), hint)
	return target{}, false
}

func didYouMean(word string, allowed []string) string {
	if near := nearest.To(word, allowed); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}

func names(entries []Entry) string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Info.Name)
	}
	return strings.Join(out, ", ")
}

func ids(entries []Entry) string {
	var out []string
	for _, e := range entries {
		out = append(out, e.ID())
	}
	return strings.Join(out, ", ")
}
