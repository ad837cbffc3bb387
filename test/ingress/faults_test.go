package ingress

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
	"github.com/k3m-io/k3m/test/images"
)

// endpoints: pods that come get traffic, those that go, or are not ready, get none, and no
// request is lost meanwhile.
func endpoints(s *scene, _ controller) {
	const url = "http://endpoints.example/"
	s.ingresses(simple("endpoints", rule("endpoints.example", "Prefix", "/", "many")))
	s.become(ask{url: url, backend: "many"})
	asking := s.keepAsking(url)
	s.scale(1)
	s.onlyPods(url, s.pods("app=echo", 1))
	s.scale(podCount)
	pods := s.pods("app=echo", podCount)
	s.onlyPods(url, pods)
	asking.stop().none(s, "scaling down and up")

	// Not ready: out of the balance, though alive.
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, fmt.Sprintf("http://%s:8080/ready", pods[0].Status.PodIP), nil)
	if err != nil {
		s.Fatal(err)
	}
	resp, err := s.node.Host.HTTP().Do(req)
	if err != nil {
		s.Fatal(err)
	}
	resp.Body.Close()
	s.onlyPods(url, pods[1:])
	s.kubectl("delete", "pod", pods[0].Name, "--wait=false")
	s.onlyPods(url, s.pods("app=echo", podCount))
}

// onlyPods waits until these pods answer and no others do.
func (s *scene) onlyPods(url string, pods []corev1.Pod) {
	s.Helper()
	var want []string
	for _, p := range pods {
		want = append(want, p.Name)
	}
	slices.Sort(want)
	start := time.Now()
	client := &http.Client{Transport: s.web, Timeout: 5 * time.Second}
	eventually(s.T, fmt.Sprintf("only %v answer", want), func(ctx context.Context) error {
		seen := map[string]bool{}
		for range 20 * len(want) {
			got, err := get(ctx, client, url)
			if err != nil {
				return err
			}
			seen[got.Pod] = true
		}
		var all []string
		for name := range seen {
			all = append(all, name)
		}
		slices.Sort(all)
		if !slices.Equal(all, want) {
			return fmt.Errorf("%v answer", all)
		}
		return nil
	})
	s.Logf("%d pods answer after %s", len(want), time.Since(start).Round(time.Millisecond))
}

func (s *scene) scale(replicas int32) {
	s.Helper()
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "echo", Namespace: s.ns}, Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}
	if _, err := s.client.AppsV1().Deployments(s.ns).UpdateScale(s.Context(), "echo", scale, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
}

func rollout(s *scene, _ controller) {
	const url = "http://rollout.example/"
	s.ingresses(simple("rollout", rule("rollout.example", "Prefix", "/", "many")))
	s.become(ask{url: url, backend: "many"})
	asking := s.keepAsking(url)
	s.kubectl("set", "image", "deployment/echo", "echo="+images.Echo2)
	err := harness.Wait(within(s.T, 3*patience), s.client.AppsV1().Deployments(s.ns), "echo", func(d *appsv1.Deployment) (bool, string) {
		st, n := d.Status, *d.Spec.Replicas
		return st.ObservedGeneration >= d.Generation && st.UpdatedReplicas == n && st.AvailableReplicas == n && st.Replicas == n, d.Status.String()
	})
	if err != nil {
		s.Fatalf("wait for the rollout: %v", err)
	}
	s.onlyPods(url, s.pods("app=echo", podCount))
	asking.stop().none(s, "a rollout")
}

// killed: whoever of it is killed comes back, serves as before, and leaves no double.
func killed(s *scene, c controller) {
	const url = "http://killed.example/"
	s.ingresses(simple("killed", rule("killed.example", "Prefix", "/", "a")))
	s.become(ask{url: url, backend: "a"})
	s.Run("the plugin", func(t *testing.T) {
		s := s.in(t)
		s.kill9(c, url, s.component(c.id(), harness.Component.Ready).Pid)
	})
	if c.serving == "" {
		return
	}
	s.Run(c.serving, func(t *testing.T) {
		s := s.in(t)
		var pids []int
		for _, p := range s.processes(c.serving) {
			pids = append(pids, p.Pid)
		}
		if len(pids) != 1 {
			t.Fatalf("there are %d processes %s", len(pids), c.serving)
		}
		s.kill9(c, url, pids[0])
	})
}

func (s *scene) kill9(c controller, url string, pid int) {
	s.Helper()
	asking := s.keepAsking(url)
	if err := s.node.Host.Kill(pid, unix.SIGKILL); err != nil {
		s.Fatal(err)
	}
	start := time.Now()
	eventually(s.T, "it serves again", func(ctx context.Context) error {
		for _, p := range s.mustProcesses() {
			if p.Pid == pid {
				return fmt.Errorf("process %d is still there", pid)
			}
		}
		// More than once, over new connections: whoever is on its way out answers none of these.
		transport := s.outside.Transport(s.address())
		transport.DisableKeepAlives = true
		client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
		for range 20 {
			if err := (ask{url: url, backend: "a"}).try(ctx, client); err != nil {
				return err
			}
		}
		return nil
	})
	s.component(c.id(), harness.Component.Ready)
	report := asking.stop()
	s.Logf("it serves again after %s; %d of %d requests failed, at most %s between two answers",
		time.Since(start).Round(time.Millisecond), len(report.failures), report.asked, report.longest.Round(time.Millisecond))
	if c.serving != "" {
		eventually(s.T, "one process serves", func(context.Context) error {
			if found := s.processes(c.serving); len(found) != 1 {
				return fmt.Errorf("there are %d processes %s", len(found), c.serving)
			}
			return nil
		})
	}
}

func (s *scene) mustProcesses() []harness.Process {
	s.Helper()
	all, err := s.node.Host.Processes()
	if err != nil {
		s.Fatal(err)
	}
	return all
}

// processes are those of the host whose command line begins with the words.
func (s *scene) processes(words string) []harness.Process {
	s.Helper()
	return slices.DeleteFunc(s.mustProcesses(), func(p harness.Process) bool { return !strings.HasPrefix(p.Cmdline, words) })
}
