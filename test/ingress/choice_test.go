package ingress

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// TestChoice swaps the controllers of a running server, each way of asking for it, and runs
// both.
func TestChoice(t *testing.T) {
	one, two := controllers[0], controllers[1]
	s := boot(t, "choice", file([]controller{one}, one.block()), one.id(), "dns.coredns", "servicelb.nodeip")
	s.withBackends()
	// One host, of either class: each controller answers with its own backend.
	const url = "http://choice.example/"
	s.ingresses(ofClass("choice-one", one.name, "choice.example", "a") + "---\n" + ofClass("choice-two", two.name, "choice.example", "b"))
	s.become(ask{url: url, backend: "a"})
	core, started := s.node.Pid(), s.starts()

	// to sees that a swap came to its end.
	to := func(s *scene, from, to controller, backend string, start time.Time) {
		s.Helper()
		s.become(ask{url: url, backend: backend})
		s.Logf("%s answers %s after it was asked for", to.id(), time.Since(start).Round(time.Millisecond))
		s.component(to.id(), harness.Component.Ready)
		s.nothingLeft(from)
		s.isDefault(to, true)
	}
	t.Run("by an edit of the file", func(t *testing.T) {
		s := s.in(t)
		start := time.Now()
		s.reconfigure(file([]controller{two}, two.block()))
		to(s, one, two, "b", start)
		start = time.Now()
		s.reconfigure(file([]controller{one}, one.block()))
		to(s, two, one, "a", start)
	})
	t.Run("by commands", func(t *testing.T) {
		s := s.in(t)
		start := time.Now()
		s.k3m("component", "disable", "--yes", one.id())
		s.k3m("component", "enable", "--yes", "ingress="+two.name)
		to(s, one, two, "b", start)
		start = time.Now()
		s.k3m("component", "enable", "--yes", "ingress="+one.name)
		s.k3m("component", "disable", "--yes", two.id())
		to(s, two, one, "a", start)
	})
	if s.node.Pid() != core || !s.node.Running() {
		t.Error("the server was restarted")
	}
	if now := s.starts(); now != started {
		t.Errorf("other components were restarted: %s, before %s", now, started)
	}
	// What the commands have written would be stronger than the file.
	if err := os.RemoveAll(s.node.Host.ConfigFile + ".d"); err != nil {
		t.Fatal(err)
	}

	t.Run("both, the second without ports", func(t *testing.T) {
		s := s.in(t)
		s.reconfigure(file([]controller{one, two}, one.block(), two.block()))
		s.component(two.id(), harness.Component.Ready)
		svc := s.service(two, func(svc *corev1.Service) bool { return svc.Spec.Type == corev1.ServiceTypeNodePort })
		s.become(ask{url: url, backend: "a"}, ask{url: fmt.Sprintf("http://choice.example:%d/", svc.Spec.Ports[0].NodePort), backend: "b"})
		s.isDefault(one, true)
		s.isDefault(two, false)
		s.logged(two.id(), "httpPort", "NodePort")
	})
	t.Run("both, the second with ports", func(t *testing.T) {
		s := s.in(t)
		s.reconfigure(file([]controller{one, two}, one.block(), two.block("httpPort: 9080", "httpsPort: 9443")))
		s.become(ask{url: url, backend: "a"}, ask{url: "http://choice.example:9080/", backend: "b", also: from(s.outside.Addr.String())})
		s.published("choice-one", s.address().String())
		s.published("choice-two", s.address().String())
	})
	t.Run("both, the other way round", func(t *testing.T) {
		s := s.in(t)
		s.reconfigure(file([]controller{two, one}, one.block("httpPort: 9080", "httpsPort: 9443"), two.block()))
		s.become(ask{url: url, backend: "b"}, ask{url: "http://choice.example:9080/", backend: "a"})
		s.isDefault(one, false)
		s.isDefault(two, true)
	})
	t.Run("none", func(t *testing.T) {
		s := s.in(t)
		s.reconfigure(file(nil))
		s.nothingLeft(one)
		s.nothingLeft(two)
	})
}

// starts is how often the components were started that are no ingress.
func (s *scene) starts() string {
	s.Helper()
	all, err := s.node.Components(within(s.T, patience))
	if err != nil {
		s.Fatal(err)
	}
	sum := 0
	var pids []string
	for _, id := range []string{"runtime.containerd", "cni.flannel", "dns.coredns", "servicelb.nodeip"} {
		pids = append(pids, fmt.Sprintf("%s: %d", id, all[id].Pid))
		sum += all[id].Restarts
	}
	return fmt.Sprintf("%s, %d restarts", strings.Join(pids, ", "), sum)
}

// isDefault waits until a controller's IngressClass is the default one, or is not.
func (s *scene) isDefault(c controller, want bool) {
	s.Helper()
	err := harness.Wait(within(s.T, patience), s.client.NetworkingV1().IngressClasses(), c.name, func(class *networkingv1.IngressClass) (bool, string) {
		is := class.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
		return is == want, fmt.Sprintf("its annotations are %v", class.Annotations)
	})
	if err != nil {
		s.Errorf("wait until the default IngressClass is %s (%t): %v", c.name, want, err)
	}
}

// logged waits for a line of a component's log that has all the words.
func (s *scene) logged(id string, words ...string) {
	s.Helper()
	eventually(s.T, fmt.Sprintf("%s logs %q", id, words), func(context.Context) error {
		for line := range strings.Lines(s.node.Logs()) {
			if strings.Contains(line, id) && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				return nil
			}
		}
		return fmt.Errorf("no such line")
	})
}
