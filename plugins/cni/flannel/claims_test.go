package flannel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/sdk"
)

// claimant is a Node with a lease: made so many minutes after the first one, with the
// address 192.0.2.<n> and a MAC address of its own.
func claimant(name string, minute, n int, podCIDRs ...string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:              name,
			CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC)),
			Annotations: map[string]string{
				annotationManaged: "true", annotationBackendType: backendVXLAN,
				annotationPublicIP:      fmt.Sprintf("192.0.2.%d", n),
				annotationPublicIPv6:    fmt.Sprintf("2001:db8::%d", n),
				annotationBackendData:   fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}`, n),
				annotationBackendV6Data: fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:06:%02x"}`, n),
			},
		},
		Spec: corev1.NodeSpec{PodCIDRs: podCIDRs},
	}
}

// The node "own" has 10.42.0.0/24 and fd42::/64. What the backend is told, in order: a
// node's number and "+" or "-" its subnet.
func TestALeaseBelongsToTheOldestNode(t *testing.T) {
	own := claimant("own", 5, 1, "10.42.0.0/24", "fd42::/64")
	old, young := claimant("old", 1, 2, "10.42.1.0/24"), claimant("young", 9, 3, "10.42.1.0/24")
	with := func(node *corev1.Node, change func(*corev1.Node)) *corev1.Node {
		node = node.DeepCopy()
		change(node)
		return node
	}
	type step struct {
		seen, gone *corev1.Node
		synced     bool
	}
	synced := step{synced: true}
	for name, test := range map[string]struct {
		dual  bool
		steps []step
		want  string // "" is no event
		warns string // "" is no warning
	}{
		"its own subnet": {
			steps: []step{{seen: own}, synced, {seen: claimant("older", 0, 4, "10.42.0.0/24")}},
			warns: "pod CIDR 10.42.0.0/24 overlaps this node's own 10.42.0.0/24",
		},
		"a range with its own subnet in it": {
			steps: []step{{seen: own}, synced, {seen: claimant("older", 0, 4, "10.42.0.0/16")}},
			warns: "pod CIDR 10.42.0.0/16 overlaps this node's own 10.42.0.0/24",
		},
		"a part of another's subnet": {
			steps: []step{{seen: own}, synced, {seen: old}, {seen: claimant("older", 0, 4, "10.42.1.0/25")}},
			want:  "2+10.42.1.0/24",
			warns: "pod CIDR 10.42.1.0/25 is not of the same size as this node's own 10.42.0.0/24",
		},
		"the older first": {
			steps: []step{{seen: own}, synced, {seen: old}, {seen: young}},
			want:  "2+10.42.1.0/24",
			warns: "node old, which is older, has 10.42.1.0/24",
		},
		"the older last": {
			steps: []step{{seen: own}, synced, {seen: young}, {seen: old}},
			want:  "3+10.42.1.0/24 3-10.42.1.0/24 2+10.42.1.0/24",
			warns: "node old, which is older, has 10.42.1.0/24",
		},
		"nothing is decided before all are seen": {
			steps: []step{{seen: own}, {seen: young}, {seen: old}, synced},
			want:  "2+10.42.1.0/24",
			warns: "node old, which is older, has 10.42.1.0/24",
		},
		"nor before its own subnet is": {
			steps: []step{{seen: young}, {seen: old}, synced, {seen: with(own, func(n *corev1.Node) { n.Spec.PodCIDRs = nil })}, {seen: own}},
			want:  "2+10.42.1.0/24",
			warns: "node old, which is older, has 10.42.1.0/24",
		},
		"of the same age, the name decides": {
			steps: []step{{seen: own}, {seen: claimant("b", 1, 3, "10.42.1.0/24")}, {seen: claimant("a", 1, 4, "10.42.1.0/24")}, synced},
			want:  "4+10.42.1.0/24",
			warns: "node a, which is older, has 10.42.1.0/24",
		},
		"the older goes": {
			steps: []step{{seen: own}, synced, {seen: old}, {seen: young}, {gone: old}},
			want:  "2+10.42.1.0/24 2-10.42.1.0/24 3+10.42.1.0/24",
			warns: "node old, which is older",
		},
		"the refused one goes": {
			steps: []step{{seen: own}, synced, {seen: old}, {seen: young}, {gone: young}},
			want:  "2+10.42.1.0/24",
			warns: "node old, which is older",
		},
		"the older moves": {
			steps: []step{{seen: own}, synced, {seen: old}, {seen: young}, {seen: claimant("old", 1, 2, "10.42.7.0/24")}},
			want:  "2+10.42.1.0/24 2-10.42.1.0/24 2+10.42.7.0/24|3+10.42.1.0/24",
			warns: "node old, which is older",
		},
		"the older has no lease any more": {
			steps: []step{{seen: own}, synced, {seen: old}, {seen: young}, {seen: with(old, func(n *corev1.Node) { n.Annotations = nil })}},
			want:  "2+10.42.1.0/24 2-10.42.1.0/24 3+10.42.1.0/24",
			warns: "node old, which is older",
		},
		"the older is made anew, and is the younger": {
			steps: []step{{seen: own}, synced, {seen: old}, {seen: young}, {seen: with(old, func(n *corev1.Node) {
				n.CreationTimestamp = metav1.NewTime(young.CreationTimestamp.Add(time.Hour))
			})}},
			want:  "2+10.42.1.0/24 2-10.42.1.0/24 3+10.42.1.0/24",
			warns: "node young, which is older, has 10.42.1.0/24", // the second warning
		},
		"one moves onto another's subnet": {
			steps: []step{{seen: own}, synced, {seen: old}, {seen: claimant("young", 9, 3, "10.42.3.0/24")}, {seen: young}},
			want:  "2+10.42.1.0/24 3+10.42.3.0/24 3-10.42.3.0/24",
			warns: "node old, which is older",
		},
		"its own Node goes and comes": {
			steps: []step{{seen: own}, synced, {seen: old}, {gone: own}, {seen: claimant("older", 0, 4, "10.42.0.0/24")}, {seen: own}},
			want:  "2+10.42.1.0/24",
			warns: "overlaps this node's own",
		},
		"another's IPv6 subnet": {
			dual: true,
			steps: []step{{seen: own}, synced, {seen: claimant("old", 1, 2, "10.42.1.0/24", "fd42:0:0:1::/64")},
				{seen: claimant("young", 9, 3, "10.42.2.0/24", "fd42:0:0:1::/64")}},
			want:  "2+10.42.1.0/24",
			warns: "node old, which is older, has fd42:0:0:1::/64",
		},
		// Under another's MAC address, the tunnel's table of MAC addresses would lead there.
		"another's MAC address": {
			steps: []step{{seen: own}, synced, {seen: old}, {seen: with(claimant("young", 9, 3, "10.42.3.0/24"), func(n *corev1.Node) {
				n.Annotations[annotationBackendData] = strings.ToUpper(old.Annotations[annotationBackendData])
				n.Annotations[annotationBackendData] = strings.Replace(n.Annotations[annotationBackendData], "VTEPMAC", "VtepMAC", 1)
			})}},
			want:  "2+10.42.1.0/24",
			warns: "node old, which is older, has MAC address 02:00:00:00:00:02",
		},
		"another's WireGuard key": {
			steps: []step{{seen: own}, synced,
				{seen: with(old, func(n *corev1.Node) { n.Annotations[annotationBackendData] = `{"PublicKey":"AAA="}` })},
				{seen: with(claimant("young", 9, 3, "10.42.3.0/24"), func(n *corev1.Node) { n.Annotations[annotationBackendData] = `{"PublicKey":"AAB="}` })}},
			want:  "2+10.42.1.0/24",
			warns: "node old, which is older, has public key AAA=",
		},
		"no conflict": {
			steps: []step{{seen: own}, synced, {seen: old}, {seen: claimant("young", 9, 3, "10.42.3.0/24")}, {seen: old}},
			want:  "2+10.42.1.0/24 3+10.42.3.0/24",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			p := &plan{nodeName: "own", cluster4: netip.MustParsePrefix("10.42.0.0/16")}
			if test.dual {
				p.cluster6 = netip.MustParsePrefix("fd42::/56")
			}
			m := newLeases(p, nil, hclog.New(&hclog.LoggerOptions{Output: &log}))
			for _, s := range test.steps {
				switch {
				case s.synced:
					m.allSeen()
				case s.gone != nil:
					m.nodeGone(slim(t, s.gone))
				default:
					m.nodeSeen(slim(t, s.seen))
					m.nodeSeen(slim(t, s.seen)) // as a heartbeat does
				}
			}
			var have []string
			for _, event := range m.queue {
				sign := map[bool]string{true: "+", false: "-"}[event.Type == 0]
				ip := event.Lease.Attrs.PublicIP.String()
				have = append(have, ip[len(ip)-1:]+sign+event.Lease.Subnet.String())
			}
			// Those with a bar between them may come in any order.
			want := strings.Fields(strings.ReplaceAll(test.want, "|", " "))
			if strings.Contains(test.want, "|") {
				slices.Sort(have[len(have)-2:])
			}
			if !slices.Equal(have, want) {
				t.Errorf("the backend was told %v, want %v", have, want)
			}
			if warned := strings.Count(log.String(), "[WARN]"); !strings.Contains(log.String(), test.warns) || (warned > 0) != (test.warns != "") || warned > 2 {
				t.Errorf("warned %d times, want once or twice with %q:\n%s", warned, test.warns, log.String())
			}
		})
	}
}

func slim(t *testing.T, node *corev1.Node) *corev1.Node {
	t.Helper()
	obj, err := slimNode(node.DeepCopy())
	must(t, err)
	return obj.(*corev1.Node)
}

// A node that registers with another's pod CIDR, or with this node's, gets no packet.
func TestNoRouteToAnImpostor(t *testing.T) {
	l := newLAN(t)
	l.api.put("node-2", "10.42.0.0/24")
	l.api.put("node-3", "10.42.1.0/24")
	one, two := l.newHost(2, sdk.NFTables, ``), l.newHost(3, sdk.NFTables, ``)
	c, _ := one.up(), two.up()
	expectRoute(t, one, "10.42.1.0/24 via 10.42.1.0 dev flannel.1", true)
	a, b := one.newPod("a"), two.newPod("b")
	serveEcho(t, b.namespace, 80)
	for i, cidr := range []string{"10.42.1.0/24", "10.42.0.0/24", "10.42.1.0/25"} {
		impostor := fmt.Sprintf("node-9%d", i)
		l.api.put(impostor, cidr)
		l.api.annotate(impostor, map[string]string{
			annotationManaged: "true", annotationBackendType: backendVXLAN, annotationPublicIP: "192.168.77.9",
			annotationBackendData: fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}`, i),
		})
		eventually(t, impostor+" is refused", func() bool { return strings.Contains(c.log.String(), impostor) })
	}
	expectReach(t, a.namespace, "10.42.1.2:80", "10.42.0.2")
	if fdb := one.output("bridge", "fdb", "show", "dev", "flannel.1"); strings.Contains(fdb, "192.168.77.9") {
		t.Errorf("packets go to the impostor:\n%s", fdb)
	}
	// With the node that has it gone, the subnet is the next one's.
	l.api.remove("node-3")
	eventually(t, "packets go to the next node", func() bool {
		return strings.Contains(one.output("bridge", "fdb", "show", "dev", "flannel.1"), "192.168.77.9")
	})
}
