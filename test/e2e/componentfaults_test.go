package e2e

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/test/harness"
)

// clusterDNS is where a cluster answers for its names.
const clusterDNS = "10.43.0.10:53"

// servicePods are a server that everybody may ask, one that a policy closes, and a client.
const servicePods = `
apiVersion: v1
kind: Pod
metadata: {name: open, labels: {app: open}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: echo, image: ECHO}]}
---
apiVersion: v1
kind: Pod
metadata: {name: closed, labels: {app: closed}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: echo, image: ECHO}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: echo, image: ECHO}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: closed}}, policyTypes: [Ingress]}
`

// latePod starts while nobody enforces its policy anew.
const latePod = `
apiVersion: v1
kind: Pod
metadata: {name: late, labels: {app: closed}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: echo, image: ECHO}]}
`

// services are the built-in components that give a cluster its own services.
var services = []string{
	"dns.coredns", "ingress.traefik", "servicelb.nodeip", "local-storage.local-path", "metrics-server.metrics-server", "network-policy.nftables",
}

// TestComponentFaults kills each of the cluster's own services under load.
func TestComponentFaults(t *testing.T) {
	s := play(t)
	for _, id := range services {
		waitComponent(t, within(t, pluginBackLimit), s.node, id, harness.Component.Ready)
	}
	s.apply(servicePods)
	before := containers(slices.Concat(s.pods("app=open", 1), s.pods("app=closed", 1), s.pods("app=client", 1)))
	open, client := s.pods("app=open", 1)[0].Status.PodIP, s.pods("app=client", 1)[0].Status.PodIP
	closed := s.pods("app=closed", 1)[0].Status.PodIP
	s.untilClosed(client, closed)

	requests := ask(t, s.node.Host.HTTP(), through(client, open))
	breaches := keepAsking(t, func(ctx context.Context) error {
		_, err := harness.Get(ctx, s.node.Host.HTTP(), through(client, closed))
		return err
	})
	for _, id := range services {
		t.Run(id, func(t *testing.T) {
			requests.sofar()
			f := &faults{scene: s}
			f.plugin(t, id, unix.SIGKILL)
			if err := s.resolves(within(t, 20*time.Second)); err != nil {
				t.Errorf("names don't resolve afterwards: %v", err)
			}
			if got := requests.sofar(); len(got.failures) > 0 {
				t.Errorf("%d of %d requests between pods failed: %v", len(got.failures), got.asked, got.failures)
			}
			got := breaches.sofar()
			if got.asked != len(got.failures) {
				t.Errorf("%d of %d requests passed a policy that forbids them", got.asked-len(got.failures), got.asked)
			}
		})
	}
	if now := containers(slices.Concat(s.pods("app=open", 1), s.pods("app=closed", 1), s.pods("app=client", 1))); !slices.Equal(now, before) {
		t.Errorf("containers were %q and are %q", before, now)
	}
	breaches.stop()
	t.Run("a pod that starts without network-policy.nftables", func(t *testing.T) { s.lateWithoutPolicies(t, client) })
}

// lateWithoutPolicies starts a pod that a policy closes while the component that knows is
// held dead, and sees that the pod can be reached neither then nor later.
func (s *scene) lateWithoutPolicies(t *testing.T, client string) {
	const id = "network-policy.nftables"
	ctx, cancel := context.WithCancel(t.Context())
	held := make(chan struct{})
	defer func() { cancel(); <-held }() // also when the scene ends the test
	go func() {                         // each time that it comes back, it dies at once
		defer close(held)
		for ctx.Err() == nil {
			all, err := s.node.Components(ctx)
			if pid := all[id].Pid; err == nil && pid != 0 {
				_ = s.node.Host.Kill(pid, unix.SIGKILL) // it may be gone already
			}
		}
	}()
	s.apply(latePod)
	var passed int
	ip := ""
	for _, p := range s.pods("app=closed", 2) {
		if p.Name == "late" {
			ip = p.Status.PodIP
		}
	}
	for range 3 { // each waits some seconds for an answer
		if _, err := harness.Get(within(t, 10*time.Second), s.node.Host.HTTP(), through(client, ip)); err == nil {
			passed++
		}
	}
	cancel()
	<-held
	waitComponent(t, within(t, pluginBackLimit), s.node, id, harness.Component.Ready)
	if _, err := harness.Get(within(t, 10*time.Second), s.node.Host.HTTP(), through(client, ip)); err == nil {
		passed++
	}
	if passed > 0 {
		t.Errorf("%d requests reached a pod that a policy closes", passed)
	}
	s.kubectl("delete", "pod", "late", "--now")
}

// through is the URL at which the echo pod with one address fetches from that with another.
func through(client, server string) string {
	return fmt.Sprintf("http://%s/fetch?url=%s", net.JoinHostPort(client, "8080"), url.QueryEscape("http://"+net.JoinHostPort(server, "8080")+"/"))
}

// untilClosed waits until a policy keeps the client from the server.
func (s *scene) untilClosed(client, server string) {
	s.Helper()
	_, err := eventually(within(s.T, 30*time.Second), func(ctx context.Context) (any, error) {
		if _, err := harness.Get(ctx, s.node.Host.HTTP(), through(client, server)); err == nil {
			return nil, fmt.Errorf("the policy does not keep the client out")
		}
		return nil, nil
	})
	if err != nil {
		s.Fatal(err)
	}
}

// resolves asks the cluster's DNS, from the node, for the API's Service until it answers.
func (s *scene) resolves(ctx context.Context) error {
	_, err := eventually(ctx, func(ctx context.Context) (any, error) { return nil, lookup(ctx, s.node.Host) })
	return err
}

// lookup asks once, and waits at most half a second for the answer.
func lookup(ctx context.Context, h *harness.Host) error {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return h.Dial(ctx, network, clusterDNS)
	}}
	addrs, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	if err == nil && !slices.Equal(addrs, []string{"10.43.0.1"}) {
		err = fmt.Errorf("the API's Service is at %v", addrs)
	}
	return err
}
