package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

const policyPods = `
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: e, image: ECHO}]}
---
apiVersion: v1
kind: Pod
metadata: {name: friend, labels: {app: friend}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: e, image: ECHO}]}
---
apiVersion: v1
kind: Pod
metadata: {name: foe, labels: {app: foe}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: e, image: ECHO}]}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
`

const friendsOnly = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends-only}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: 8080}]}]
`

// starters ask from the moment at which their container starts, and tell in their log when
// they have got an answer.
const starters = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: starter}
spec:
  replicas: 10
  selector: {matchLabels: {app: starter}}
  template:
    metadata: {labels: {app: starter}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: b
        image: BUSYBOX
        command: [sh, -c, 'until timeout 20 wget -q -O /dev/null http://TARGET/; do sleep 1; done; echo "got in"; exec sleep 3600']
`

// reachable says whether a pod gets an answer from a URL. The node itself always gets to pods.
func (s *scene) reachable(pod *corev1.Pod, target string) bool {
	s.Helper()
	at := net.JoinHostPort(pod.Status.PodIP, "8080")
	_, err := harness.Get(within(s.T, 15*time.Second), s.node.Host.HTTP(), "http://"+at+"/fetch?url="+url.QueryEscape(target))
	return err == nil
}

// becomes waits until a pod reaches a URL, or does no more.
func (s *scene) becomes(reachable bool, pod *corev1.Pod, target string) {
	s.Helper()
	_, err := eventually(within(s.T, 30*time.Second), func(context.Context) (struct{}, error) {
		if s.reachable(pod, target) != reachable {
			return struct{}{}, errors.New("not so yet")
		}
		return struct{}{}, nil
	})
	if err != nil {
		s.Fatalf("from %s to %s, reachable %t: %v", pod.Name, target, reachable, err)
	}
}

func TestNetworkPolicy(t *testing.T) {
	s := play(t)
	s.apply(policyPods)
	server, friend, foe := s.pod("server"), s.pod("friend"), s.pod("foe")
	service, err := s.client.CoreV1().Services(s.ns).Get(t.Context(), "server", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	direct := "http://" + net.JoinHostPort(server.Status.PodIP, "8080") + "/"
	byService := "http://" + service.Spec.ClusterIP + "/"
	s.becomes(true, foe, byService)

	s.apply(friendsOnly)
	s.becomes(false, foe, direct)
	for what, want := range map[string]bool{direct: true, byService: true} {
		if s.reachable(friend, what) != want {
			t.Errorf("the friend does not reach %s", what)
		}
	}
	if s.reachable(foe, byService) {
		t.Error("the foe reaches the server by its Service")
	}
	if !s.reachable(server, byService) {
		t.Error("the server does not reach itself by its Service")
	}
	if !s.reachable(foe, "http://"+net.JoinHostPort(friend.Status.PodIP, "8080")+"/") {
		t.Error("the foe does not reach the friend, whom no policy selects")
	}

	t.Run("holds while the component is dead", func(t *testing.T) {
		const id = "network-policy.nftables"
		dead := s.node.Component(t, within(t, 10*time.Second), id)
		if err := s.node.Host.Kill(dead.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if s.reachable(foe, direct) {
			t.Error("the foe reaches the server")
		}
		if !s.reachable(friend, direct) {
			t.Error("the friend does not")
		}
		_, err := eventually(within(t, 20*time.Second), func(ctx context.Context) (struct{}, error) {
			if c := s.node.Component(t, ctx, id); c.Pid == dead.Pid || !c.Ready() {
				return struct{}{}, fmt.Errorf("it is %s", c.State)
			}
			return struct{}{}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if s.reachable(foe, direct) || !s.reachable(friend, direct) {
			t.Error("the next one does not enforce the policy")
		}
	})

	t.Run("does not hold up other pods", func(t *testing.T) {
		// Nothing selects these; not one of their packets is lost since nobody knows them yet.
		before := s.unknownPackets()
		s.apply(strings.ReplaceAll(starters, "TARGET", net.JoinHostPort(friend.Status.PodIP, "8080")))
		for _, p := range s.pods("app=starter", 10) {
			_, err := eventually(within(t, 60*time.Second), func(context.Context) (struct{}, error) {
				if text := s.kubectl("logs", p.Name); !strings.Contains(text, "got in") {
					return struct{}{}, fmt.Errorf("it says %q", text)
				}
				return struct{}{}, nil
			})
			if err != nil {
				t.Fatalf("%s: %v", p.Name, err)
			}
		}
		if after := s.unknownPackets(); after != before {
			t.Errorf("packets of unknown pods that were dropped: %s before, %s after", before, after)
		}
	})

	t.Run("isolates a pod from its first moment", func(t *testing.T) {
		// These ask the server, which lets in friends alone.
		s.apply(strings.NewReplacer("TARGET", net.JoinHostPort(server.Status.PodIP, "8080"), "name: starter", "name: stranger",
			"app: starter", "app: stranger", "replicas: 10", "replicas: 2").Replace(starters))
		pods := s.pods("app=stranger", 2)
		time.Sleep(3 * time.Second) // some tries; there is no event for what does not happen
		for _, p := range pods {
			if text := s.kubectl("logs", p.Name); strings.Contains(text, "got in") {
				t.Errorf("%s: %s", p.Name, text)
			}
		}
	})

	s.kubectl("delete", "networkpolicy", "friends-only")
	s.becomes(true, foe, direct)

	if rules := s.nft("list", "table", "inet", policyTable); strings.Contains(rules, "pods4-") {
		t.Errorf("the policy left something behind:\n%s", rules)
	}
}

const dnsOnly = `
apiVersion: v1
kind: Pod
metadata: {name: guest, labels: {app: guest}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: b, image: BUSYBOX, command: [sleep, "3600"]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns-only}
spec:
  podSelector: {matchLabels: {app: guest}}
  policyTypes: [Egress]
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
`

// TestNetworkPolicyToComponents has the policy that people use most: nothing but DNS. The server
// is a component, no pod, on an address that all components of the node share.
func TestNetworkPolicyToComponents(t *testing.T) {
	s := play(t)
	s.apply(dnsOnly)
	guest := s.pod("guest")
	run := func(command ...string) error {
		_, err := s.node.Kubectl(within(t, 20*time.Second), append([]string{"-n", s.ns, "exec", guest.Name, "--", "timeout", "5"}, command...)...)
		return err
	}
	_, err := eventually(within(t, 30*time.Second), func(context.Context) (struct{}, error) {
		return struct{}{}, run("nslookup", "kubernetes.default.svc.cluster.local")
	})
	if err != nil {
		t.Errorf("the guest gets no answer from the DNS server: %v", err)
	}
	if run("nc", "-z", s.node.Host.Addr.String(), "6443") == nil {
		t.Error("the guest reaches the API server")
	}
	s.kubectl("delete", "networkpolicy", "dns-only")
	_, err = eventually(within(t, 30*time.Second), func(context.Context) (struct{}, error) {
		return struct{}{}, run("nc", "-z", s.node.Host.Addr.String(), "6443")
	})
	if err != nil {
		t.Errorf("without the policy the guest does not reach the API server: %v", err)
	}
}

const policyTable = "k3m-network-policy"

// nft asks the node's kernel.
func (s *scene) nft(args ...string) string {
	s.Helper()
	out, err := s.node.Host.Command(within(s.T, 10*time.Second), "nft", args...).CombinedOutput()
	if err != nil {
		s.Fatalf("nft %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// unknownPackets are those that were dropped since nobody knew the pod.
func (s *scene) unknownPackets() string {
	s.Helper()
	fields := strings.Fields(s.nft("list", "counter", "inet", policyTable, "unknown"))
	if i := slices.Index(fields, "packets"); i >= 0 && i+1 < len(fields) {
		return fields[i+1]
	}
	s.Fatalf("no counter in %v", fields)
	return ""
}
