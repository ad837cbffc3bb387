package components

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/sdk"
	"golang.org/x/sys/unix"
)

// withoutNetwork runs components as on a node whose pod network is not k3m's.
func withoutNetwork(o *Options) {
	o.Selection.None = []string{"cni"}
	o.Facts = func() sdk.Facts {
		return sdk.Facts{NodeName: "node-1", NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	}
}

// A component's endpoints are shown while it serves, and no longer; those that are not its own
// never are.
func TestServedEndpoints(t *testing.T) {
	n := newNode(t)
	n.plugin("false-endpoint", "dns.false")
	s := n.run(withoutNetwork)
	ready := untilState(t, s, "dns.false", Ready)
	if len(ready.Endpoints) != 1 || ready.Endpoints[0].Service != "kube-system/mine" || !slices.Equal(ready.Endpoints[0].Addresses, []string{"192.0.2.1"}) {
		t.Errorf("endpoints %+v", ready.Endpoints)
	}
	log := n.log.String()
	for _, want := range []string{"default/kubernetes", "192.0.2.99 is no address of this node"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	if err := unix.Kill(ready.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for st := range s.Watch(ctx) {
		if serving := st.State == Ready; serving != (len(st.Endpoints) == 1) {
			t.Errorf("%s with endpoints %+v", st.State, st.Endpoints)
		}
		if st.State == Ready && st.PID != ready.PID {
			return
		}
	}
}

// What a process serves is known, for the guard of its port, before the component is ready, and as
// long as the process lives.
func TestServedBeforeReady(t *testing.T) {
	n := newNode(t)
	n.plugin("early-endpoint", "dns.early")
	s := n.run(withoutNetwork)
	serves := until(t, s, "dns.early", "serves", func(ComponentStatus) bool { return len(s.Served()) == 1 })
	if serves.State != Starting || len(serves.Endpoints) > 0 {
		t.Errorf("it serves in state %s, and is said to at %+v", serves.State, serves.Endpoints)
	}
	if err := unix.Kill(serves.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, s, "dns.early", "serves no more", func(st ComponentStatus) bool { return st.State != Starting && len(s.Served()) == 0 })
	until(t, s, "dns.early", "serves again", func(st ComponentStatus) bool { return st.PID != serves.PID && len(s.Served()) == 1 })
}

func TestMetricsOfAProcess(t *testing.T) {
	n := newNode(t)
	n.plugin("false-metrics", "addon.measured")
	n.plugin("good", "ingress.plain")
	s := n.run()
	untilState(t, s, "addon.measured", Ready)
	untilState(t, s, "ingress.plain", Ready)
	text, err := s.Metrics("addon.measured")(t.Context())
	if err != nil || !strings.HasPrefix(string(text), "go_goroutines 7") {
		t.Errorf("%q, %v", text, err)
	}
	if s.Metrics("ingress.plain") != nil || s.Metrics("addon.unknown") != nil {
		t.Error("components without metrics are asked for them")
	}
}
