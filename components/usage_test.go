package components

import (
	"testing"
)

func TestUsage(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	n.plugin("leave-children", "addon.parent")
	n.plugin("flood-stderr", "addon.busy")
	s := n.run()
	untilState(t, s, "addon.parent", Ready)
	untilState(t, s, "addon.busy", Ready)
	usage, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if len(usage) != 2 {
		t.Fatalf("usage %+v", usage)
	}
	for _, u := range usage {
		if u.CPU <= 0 || u.Time.IsZero() || u.PSS < 1<<20 {
			t.Errorf("%s uses nothing: %+v", u.ID, u)
		}
		if want := map[string]int{"addon.parent": 2, "addon.busy": 1}[u.ID]; u.Processes != want {
			t.Errorf("%s has %d processes, want %d", u.ID, u.Processes, want)
		}
	}
}
