package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/exec"
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

// starters tell in their log how often they had to ask before they got an answer, from the
// moment at which their container started.
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
        command: [sh, -c, 'n=1; until wget -T 1 -q -O /dev/null http://TARGET/; do n=$((n+1)); done; echo "asked $n times"; exec sleep 3600']
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
		// Nothing selects these; the first packet of each has to pass.
		s.apply(strings.ReplaceAll(starters, "TARGET", net.JoinHostPort(friend.Status.PodIP, "8080")))
		for _, p := range s.pods("app=starter", 10) {
			text, err := eventually(within(t, 30*time.Second), func(context.Context) (string, error) {
				text := s.kubectl("logs", p.Name)
				if !strings.Contains(text, "asked") {
					return "", errors.New("it has got no answer yet")
				}
				return text, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if strings.TrimSpace(text) != "asked 1 times" {
				t.Errorf("%s: %s", p.Name, text)
			}
		}
	})

	t.Run("isolates a pod from its first moment", func(t *testing.T) {
		// This one asks the server, which lets in friends alone.
		s.apply(strings.NewReplacer("TARGET", net.JoinHostPort(server.Status.PodIP, "8080"), "name: starter", "name: stranger",
			"app: starter", "app: stranger", "replicas: 10", "replicas: 2", "echo \"asked", "echo \"got in, asked").Replace(starters))
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

	rules, err := s.node.Host.Command(within(t, 10*time.Second), "nft", "list", "table", "inet", "k3m-network-policy").Output()
	var failed *exec.ExitError
	if err != nil && errors.As(err, &failed) {
		t.Fatalf("%v: %s", err, failed.Stderr)
	}
	if strings.Contains(string(rules), "pods4-") {
		t.Errorf("the policy left something behind:\n%s", rules)
	}
}
