package kit

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An Event outlives what it tells of.
func TestWhoHoldsThePortIsForgottenWithTheAddress(t *testing.T) {
	node := netip.MustParseAddr("192.0.2.1")
	p := &Published{changed: func() {}, node: "n1", ips: []netip.Addr{node}, slices: map[string][]string{}}
	service := func(addresses ...string) *corev1.Service {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{UID: "a"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
		for _, a := range addresses {
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
		}
		return s
	}
	taken := func(at time.Time) *corev1.Event {
		return &corev1.Event{InvolvedObject: corev1.ObjectReference{UID: "a"}, Reason: reasonTaken, Message: "port 80/TCP is held by nginx", LastTimestamp: metav1.NewTime(at)}
	}
	is := func(when, want string) {
		t.Helper()
		if got := p.State().Pending; got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	p.onService(nil, service())
	p.onEvent(nil, taken(time.Now().Add(-time.Minute)))
	is("while the port is held", "port 80/TCP is held by nginx")
	p.onService(nil, service(node.String()))
	is("with the address", "")
	p.onService(nil, service())
	is("when the address is taken back without a word", "")
	p.onEvent(nil, taken(time.Now().Add(time.Second)))
	is("when the port is held again", "port 80/TCP is held by nginx")
}

// A process that starts when the address is gone again has not seen it.
func TestWhoHeldThePortBeforeTheAddressWasGiven(t *testing.T) {
	node, start := netip.MustParseAddr("192.0.2.1"), time.Now().Add(-time.Hour)
	event := func(after time.Duration, reason, message string) *corev1.Event {
		return &corev1.Event{InvolvedObject: corev1.ObjectReference{UID: "a"}, Reason: reason, Message: message, EventTime: metav1.NewMicroTime(start.Add(after))}
	}
	taken := event(10*time.Millisecond, reasonTaken, "port 80/TCP is held by nginx")
	for _, c := range []struct {
		name     string
		assigned *corev1.Event
		want     string
	}{
		{"to this node", event(20*time.Millisecond, reasonAssigned, "got 192.0.2.10, 192.0.2.1"), ""},
		{"to another node", event(20*time.Millisecond, reasonAssigned, "got 192.0.2.10"), taken.Message},
		{"before the port was taken", event(0, reasonAssigned, "got 192.0.2.1"), taken.Message},
	} {
		for order, events := range map[string][]*corev1.Event{"": {taken, c.assigned}, ", read first": {c.assigned, taken}} {
			t.Run(c.name+order, func(t *testing.T) {
				p := &Published{changed: func() {}, node: "n1", ips: []netip.Addr{node}, slices: map[string][]string{}}
				p.onService(nil, &corev1.Service{ObjectMeta: metav1.ObjectMeta{UID: "a"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}})
				for _, e := range events {
					p.onEvent(nil, e)
				}
				if got := p.State().Pending; got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		}
	}
}
