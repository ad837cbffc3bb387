package components

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/sdk"
)

func TestCleanup(t *testing.T) {
	n := newNode(t)
	n.witness(sdk.Info{Kind: "runtime", Name: "r"})
	n.witness(sdk.Info{Kind: "cni", Name: "c"})
	n.witness(sdk.Info{Kind: "addon", Name: "fails"})
	o := n.options()
	o.Config = map[string]json.RawMessage{"addon.fails": json.RawMessage(`{"fail":true}`)}
	err := Cleanup(context.Background(), o)
	if want := "clean up after component addon.fails: clean up: the device is busy"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	for _, id := range []string{"runtime.r", "cni.c"} {
		if _, err := os.Stat(filepath.Join(n.dataDir, "components", id, "state/cleaned")); err != nil {
			t.Errorf("%s was not asked: %v", id, err)
		}
	}
	if _, err := os.Stat(filepath.Join(n.runDir, "components")); err == nil {
		t.Error("the run directory is still there")
	}
	n.nothingLeft()
}

func TestWrongConfigurationIsRefused(t *testing.T) {
	n := newNode(t)
	n.witness(sdk.Info{Kind: "addon", Name: "strict", ConfigSchema: json.RawMessage(
		`{"type":"object","additionalProperties":false,"properties":{"port":{"type":"integer"}}}`)})
	s := n.run(func(o *Options) {
		o.Config = map[string]json.RawMessage{"addon.strict": json.RawMessage(`{"prot":1}`)}
	})
	st := untilState(t, s, "addon.strict", Refused)
	for _, part := range []string{"its configuration is wrong: prot: ", "port", "correct it with `k3m component configure`"} {
		if !strings.Contains(st.Reason, part) {
			t.Errorf("reason %q lacks %q", st.Reason, part)
		}
	}
}

// A component that tries more than it asked for is refused each time.
func TestOverdemandIsRefused(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	n.plugin("overdemand", "addon.greedy")
	s := n.run(func(o *Options) {
		o.Identity = func(context.Context, sdk.Info, int) (string, error) { return "/nowhere", nil }
	})
	s.Provide(sdk.RequiresAPI)
	st := until(t, s, "addon.greedy", "its report", func(st ComponentStatus) bool { return strings.HasPrefix(st.Reason, "overdemand:") })
	if !strings.HasPrefix(st.Reason, "overdemand: refused:") {
		t.Errorf("reason %q", st.Reason)
	}
	for _, deed := range []string{"mount a tmpfs (operation not permitted)", "become root (operation not permitted)", "open a raw socket (operation not permitted)"} {
		if !strings.Contains(st.Reason, deed) {
			t.Errorf("reason %q lacks %q", st.Reason, deed)
		}
	}
}
