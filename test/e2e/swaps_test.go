package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// swapRounds is how often each component is swapped, one after another.
const swapRounds = 10

// TestSwaps swaps dns, servicelb and network-policy of a running server again and again,
// under a client that keeps one connection to a pod and one that keeps asking for names.
func TestSwaps(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "swaps")
	preload(t, h)
	node := h.Serve(t)
	client, err := node.WaitReady(within(t, 60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range services {
		waitComponent(t, within(t, pluginBackLimit), node, id, harness.Component.Ready)
	}
	s := &scene{T: t, node: node, client: client, ns: "default"}
	s.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: echo}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: echo, image: ECHO}]}\n")
	s.apply(balanced("balanced", portCluster, ""))
	pod := s.pod("echo")
	address := h.Addr.String()
	s.ingress("balanced", address)
	if err := s.resolves(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	core := node.Pid()

	var dials atomic.Int32
	kept := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return h.Dial(ctx, network, addr)
		},
	}}
	traffic := keepAsking(t, func(ctx context.Context) error {
		_, err := harness.Get(ctx, kept, "http://"+net.JoinHostPort(pod.Status.PodIP, "8080")+"/")
		return err
	})
	dns := keepAsking(t, func(ctx context.Context) error { return lookup(ctx, h) })

	for round := range swapRounds {
		good(t, h, []string{"component", "configure", "dns.coredns", fmt.Sprintf("cacheSeconds=%d", 10+round)}, "restarted dns.coredns, ready after")
		for _, id := range []string{"servicelb.nodeip", "network-policy.nftables"} {
			good(t, h, []string{"component", "disable", "--yes", id}, "stopped "+id)
			if id == "servicelb.nodeip" {
				s.ingress("balanced", "")
			}
			if round == swapRounds-1 {
				s.nothingLeftOf(id)
			}
			good(t, h, []string{"component", "enable", id}, "started "+id+", ready after")
		}
		s.ingress("balanced", address)
	}
	if got := traffic.stop(); len(got.failures) > 0 || dials.Load() != 1 {
		t.Errorf("%d of %d requests failed, over %d connections: %v", len(got.failures), got.asked, dials.Load(), got.failures)
	}
	t.Logf("the longest time between two answers of DNS was %s", dns.stop().longest.Round(time.Millisecond))
	if !node.Running() || node.Pid() != core {
		t.Error("the server was restarted")
	}

	// What is off leaves nothing, and comes back whole.
	good(t, h, []string{"component", "disable", "--yes", "dns"}, "stopped dns.coredns")
	s.nothingLeftOf("dns.coredns")
	good(t, h, []string{"component", "enable", "dns"}, "started dns.coredns, ready after")
	if err := s.resolves(within(t, 30*time.Second)); err != nil {
		t.Error(err)
	}
}

// nothingLeftOf sees that a disabled component has no process, object, endpoint or rule.
func (s *scene) nothingLeftOf(id string) {
	s.Helper()
	_, err := eventually(within(s.T, 20*time.Second), func(ctx context.Context) (any, error) {
		for _, p := range mustProcesses(s.T, s.node.Host) {
			if strings.HasSuffix(strings.TrimSpace(p.Cmdline), id) {
				return nil, fmt.Errorf("process %d: %s", p.Pid, p.Cmdline)
			}
		}
		if _, err := s.node.Kubectl(ctx, "get", "component", id); err == nil {
			return nil, fmt.Errorf("its Component object is there")
		}
		switch id {
		case "dns.coredns":
			slices, err := s.client.DiscoveryV1().EndpointSlices("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kube-dns"})
			if err != nil || len(slices.Items) > 0 {
				return nil, fmt.Errorf("endpoints of kube-dns: %v %w", slices, err)
			}
			services, err := s.client.CoreV1().Services("kube-system").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=kube-dns"})
			if err != nil || len(services.Items) > 0 {
				return nil, fmt.Errorf("the Service kube-dns: %v %w", services, err)
			}
		case "network-policy.nftables":
			out, err := s.node.Host.Command(ctx, "nft", "list", "tables").Output()
			if err != nil || strings.Contains(string(out), "network-policy") {
				return nil, fmt.Errorf("tables: %s %w", out, err)
			}
		}
		return nil, nil
	})
	if err != nil {
		s.Errorf("left of %s: %v", id, err)
	}
}
