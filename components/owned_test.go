package components

import (
	"slices"
	"strings"
	"testing"
)

// What a component has made up is known while it is selected, with its place in its kind; what it
// did not declare is not taken.
func TestOwned(t *testing.T) {
	n := newNode(t)
	first, second := n.plugin("own", "ingress.nginx"), n.plugin("own", "ingress.acme")
	n.plugin("own-another's", "addon.thief")
	s := n.run(withoutNetwork, func(o *Options) {
		at := slices.IndexFunc(o.Selection.Entries, func(e Entry) bool { return e.Info.Kind == "ingress" })
		o.Selection.Entries = slices.DeleteFunc(o.Selection.Entries, func(e Entry) bool { return e.Info.Kind == "ingress" })
		o.Selection.Entries = slices.Insert(o.Selection.Entries, at, first, second)
	})
	rank := func(id, want string) func(ComponentStatus) bool {
		return func(st ComponentStatus) bool {
			owned := s.Owned()[id]
			return st.State == Ready && len(owned) == 1 && strings.Contains(string(owned[0]), `"rank":"`+want+`"`)
		}
	}
	until(t, s, "ingress.nginx", "is the first of its kind", rank("ingress.nginx", "0"))
	until(t, s, "ingress.acme", "is the second of its kind", rank("ingress.acme", "1"))
	untilState(t, s, "addon.thief", Ready)
	if owned := s.Owned()["addon.thief"]; owned != nil || !strings.Contains(n.log.String(), "Service kube-dns (v1) is not among those that its info declares") {
		t.Errorf("owns %s; the log:\n%s", owned, n.log.String())
	}

	without := Selection{Entries: slices.DeleteFunc(slices.Clone(s.opts.Selection.Entries), func(e Entry) bool { return e.ID() == "ingress.nginx" })}
	without.None = s.opts.Selection.None
	outcome, err := s.Apply(t.Context(), Change{Selection: without, Config: s.opts.Config})
	if err != nil || !slices.Equal(outcome.Restarted, []string{"ingress.acme"}) {
		t.Fatalf("%+v, %v", outcome, err)
	}
	until(t, s, "ingress.acme", "has become the first of its kind", rank("ingress.acme", "0"))
	if _, ok := s.Owned()["ingress.nginx"]; ok {
		t.Error("one that is not selected any more owns objects")
	}
}
