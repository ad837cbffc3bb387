package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/test/harness"
	"github.com/k3m-io/k3m/test/images"
)

// scene is one test's namespace on a node.
type scene struct {
	*testing.T
	node   *harness.Node
	client *kubernetes.Clientset
	ns     string
}

// play makes a scene on the shared cluster.
func play(t *testing.T) *scene {
	t.Helper()
	node, client := cluster(t)
	return &scene{T: t, node: node, client: client, ns: namespace(t, client)}
}

// apply applies manifests in the test's namespace. ECHO, ECHO2 and BUSYBOX stand for the
// test images.
func (s *scene) apply(manifests string) {
	s.Helper()
	manifests = strings.NewReplacer("ECHO2", images.Echo2, "ECHO", images.Echo, "BUSYBOX", images.Busybox).Replace(manifests)
	cmd := s.node.Host.K3m(within(s.T, 30*time.Second), "kubectl", "--kubeconfig", s.node.Host.Kubeconfig, "-n", s.ns, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifests)
	if _, err := cmd.Output(); err != nil {
		s.Fatal(err)
	}
}

// kubectl runs kubectl in the test's namespace and gives what it printed.
func (s *scene) kubectl(args ...string) string {
	s.Helper()
	out, err := s.node.Kubectl(within(s.T, 30*time.Second), append([]string{"-n", s.ns}, args...)...)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// pods waits until n pods with a label are ready, and none else has it.
func (s *scene) pods(label string, n int) []corev1.Pod {
	s.Helper()
	var ready []corev1.Pod
	err := harness.WaitAll(within(s.T, 90*time.Second), s.client.CoreV1().Pods(s.ns), label, func(pods []*corev1.Pod) (bool, string) {
		ready = nil
		var story []string
		for _, p := range pods {
			if podReady(p) {
				ready = append(ready, *p)
			}
			story = append(story, p.Name+": "+string(p.Status.Phase)+" "+podStory(p))
		}
		return len(ready) == n && len(pods) == n, strings.Join(story, "\n")
	})
	if err != nil {
		s.Fatalf("wait for %d pods with %s: %v", n, label, err)
	}
	return ready
}

// pod waits until the pod with a name is ready.
func (s *scene) pod(name string) *corev1.Pod {
	s.Helper()
	return s.podWhen(name, func(p *corev1.Pod) bool { return podReady(p) })
}

// podWhen waits until the pod with a name is as wanted.
func (s *scene) podWhen(name string, is func(*corev1.Pod) bool) *corev1.Pod {
	s.Helper()
	var pod *corev1.Pod
	err := harness.Wait(within(s.T, 90*time.Second), s.client.CoreV1().Pods(s.ns), name, func(p *corev1.Pod) (bool, string) {
		pod = p
		return is(p), string(p.Status.Phase) + " " + podStory(p)
	})
	if err != nil {
		s.Fatalf("wait for pod %s: %v", name, err)
	}
	return pod
}

func podReady(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// deployment waits until all of a Deployment's pods are available in their newest form.
func (s *scene) deployment(name string) {
	s.Helper()
	err := harness.Wait(within(s.T, 90*time.Second), s.client.AppsV1().Deployments(s.ns), name, func(d *appsv1.Deployment) (bool, string) {
		st := d.Status
		return st.ObservedGeneration >= d.Generation && st.UpdatedReplicas == *d.Spec.Replicas &&
			st.AvailableReplicas == *d.Spec.Replicas && st.Replicas == *d.Spec.Replicas, d.Status.String()
	})
	if err != nil {
		s.Fatalf("wait for deployment %s: %v", name, err)
	}
}

// get asks until there is an answer: Services take a moment to reach the kernel.
func (s *scene) get(client *http.Client, url string) string {
	s.Helper()
	body, err := eventually(within(s.T, 20*time.Second), func(ctx context.Context) (string, error) {
		return harness.Get(ctx, client, url)
	})
	if err != nil {
		s.Fatal(err)
	}
	return body
}

// eventually tries until there is no error, and gives the last one when ctx ends. It is
// for what has no event to wait for.
func eventually[T any](ctx context.Context, try func(context.Context) (T, error)) (T, error) {
	var last error
	for {
		v, err := try(ctx)
		switch {
		case err == nil:
			return v, nil
		case ctx.Err() == nil || last == nil:
			last = err // not that of a try that the end of ctx cut short
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return v, fmt.Errorf("%w: %w", context.Cause(ctx), last)
		}
	}
}
