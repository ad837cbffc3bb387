package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// Each pod uses as much as its limit lets it, which is four times what its autoscaler aims at.
const burner = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: burner}
spec:
  replicas: 1
  selector: {matchLabels: {app: burner}}
  template:
    metadata: {labels: {app: burner}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: burner
        image: BUSYBOX
        command: [sh, -c, "while :; do :; done"]
        resources: {requests: {cpu: 50m}, limits: {cpu: 100m}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: burner}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: burner}
  minReplicas: 1
  maxReplicas: 2
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: viewer}]
`

// TestMetrics asks the built-in metrics-server, through the API server, as people and an
// autoscaler do.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(burner)

	s.figures("nodes")
	top := s.kubectl("top", "nodes")
	if !strings.Contains(top, "n1 ") || strings.Contains(top, "unknown") {
		t.Errorf("kubectl top nodes:\n%s", top)
	}
	node, err := s.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			t.Logf("kubectl top nodes was answered at most %s after the node was Ready:\n%s", time.Since(c.LastTransitionTime.Time).Round(time.Second), top)
		}
	}

	s.figures("namespaces/" + s.ns + "/pods")
	if top := s.kubectl("top", "pods", "-l", "app=burner"); !strings.Contains(top, "burner-") {
		t.Errorf("kubectl top pods:\n%s", top)
	}
	// An ordinary user may see what pods of their namespaces use, and no others.
	if top := s.kubectl("top", "pods", "--as=viewer"); !strings.Contains(top, "burner-") {
		t.Errorf("kubectl top pods as a viewer of the namespace:\n%s", top)
	}
	if _, err := s.node.Kubectl(within(t, 30*time.Second), "top", "pods", "-n", "kube-system", "--as=viewer"); err == nil || !strings.Contains(err.Error(), "orbidden") {
		t.Errorf("kubectl top pods of a namespace that the user may not view: %v", err)
	}

	// The controller looks each 15 s, and counts a pod once it was ready for a whole window.
	err = harness.Wait(within(t, 4*time.Minute), s.client.AppsV1().Deployments(s.ns), "burner", func(d *appsv1.Deployment) (bool, string) {
		return *d.Spec.Replicas == 2, fmt.Sprintf("%d replicas", *d.Spec.Replicas)
	})
	if err != nil {
		t.Fatalf("the autoscaler does not scale: %v\n%s", err, s.kubectl("describe", "hpa", "burner"))
	}
	s.pods("app=burner", 2)
}

// figures waits until the resource metrics API has some.
func (s *scene) figures(path string) {
	s.Helper()
	_, err := eventually(within(s.T, 90*time.Second), func(ctx context.Context) (struct{}, error) {
		var list struct{ Items []any }
		raw, err := s.client.CoreV1().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/" + path).Do(ctx).Raw()
		if err == nil {
			err = json.Unmarshal(raw, &list)
		}
		if err == nil && len(list.Items) == 0 {
			err = errors.New("no figures yet")
		}
		return struct{}{}, err
	})
	if err != nil {
		s.Fatalf("metrics of %s: %v", path, err)
	}
}
