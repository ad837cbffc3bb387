package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
	"github.com/k3m-io/k3m/test/images"
)

const echoDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - name: echo
        image: ECHO
        env: [{name: DRAIN, value: 3s}]
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: NodePort
  selector: {app: echo}
  ports: [{port: 80, targetPort: 8080}]
`

func TestDeployment(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(echoDeployment)
	pods := s.pods("app=echo", 2)
	svc, err := s.client.CoreV1().Services(s.ns).Get(t.Context(), "echo", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	host, outside := s.node.Host.HTTP(), lab.Switch.HTTP()
	clusterIP := "http://" + svc.Spec.ClusterIP
	nodePort := fmt.Sprintf("http://%s:%d", s.node.Host.Addr, svc.Spec.Ports[0].NodePort)

	for _, p := range pods {
		podIP := "http://" + net.JoinHostPort(p.Status.PodIP, "8080")
		if body := s.get(host, podIP); body != p.Name {
			t.Errorf("the IP of pod %s answers %q", p.Name, body)
		}
		if body := s.get(host, podIP+"/fetch?url="+clusterIP); !strings.HasPrefix(body, "echo-") {
			t.Errorf("the cluster IP answers a pod %q", body)
		}
	}
	for _, c := range []struct {
		name   string
		client *http.Client
		url    string
	}{
		{"cluster IP from the node", host, clusterIP},
		{"node port from the node", host, nodePort},
		{"node port from outside", outside, nodePort},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := map[string]bool{}
			deadline := time.Now().Add(20 * time.Second)
			for len(seen) < 2 && time.Now().Before(deadline) {
				seen[s.get(c.client, c.url)] = true
			}
			for _, p := range pods {
				if !seen[p.Name] {
					t.Errorf("pod %s never answered, but %v did", p.Name, seen)
				}
			}
		})
	}
	t.Run("no image was pulled", func(t *testing.T) {
		for _, p := range pods {
			if p.Spec.Containers[0].Image != images.Echo || p.Status.ContainerStatuses[0].ImageID == "" {
				t.Errorf("pod %s runs %+v", p.Name, p.Status.ContainerStatuses)
			}
		}
	})
	t.Run("a pod that is not ready gets no traffic", func(t *testing.T) {
		podIP := pods[0].Status.PodIP
		post(t, s.node.Host.HTTP(), "http://"+net.JoinHostPort(podIP, "8080")+"/ready")
		_, err := harness.WaitAny(within(t, 30*time.Second), s.client.DiscoveryV1().EndpointSlices(s.ns), "kubernetes.io/service-name=echo",
			func(e *discoveryv1.EndpointSlice) (bool, string) {
				out := slices.ContainsFunc(e.Endpoints, func(ep discoveryv1.Endpoint) bool {
					return ep.Addresses[0] == podIP && ep.Conditions.Ready != nil && !*ep.Conditions.Ready
				})
				return out, fmt.Sprint(e.Endpoints)
			})
		if err != nil {
			t.Fatal(err)
		}
		// The endpoint is out; the packet filter follows within moments. From then on only
		// the other pod answers.
		_, err = eventually(within(t, 20*time.Second), func(ctx context.Context) (string, error) {
			for range 20 {
				body, err := harness.Get(ctx, host, clusterIP)
				if err != nil || body != pods[1].Name {
					return "", fmt.Errorf("the cluster IP answers %q, %w", body, err)
				}
			}
			return "", nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestRollingUpdate changes the image under a client that keeps asking.
func TestRollingUpdate(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(echoDeployment)
	s.pods("app=echo", 2)
	svc, err := s.client.CoreV1().Services(s.ns).Get(t.Context(), "echo", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + svc.Spec.ClusterIP + "/version"
	s.get(s.node.Host.HTTP(), url)

	asking := ask(t, s.node.Host.HTTP(), url)
	s.kubectl("set", "image", "deployment/echo", "echo="+images.Echo2)
	s.deployment("echo")
	s.pods("app=echo", 2)
	report := asking.stop()
	if len(report.failures) > 0 || report.asked < 50 {
		t.Errorf("%d of %d requests failed during a rolling update: %v", len(report.failures), report.asked, report.failures)
	}
	if body := s.get(s.node.Host.HTTP(), url); body != "2" {
		t.Errorf("after the update the Service answers with version %q", body)
	}
}

func post(t *testing.T, client *http.Client, url string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("post %s: %s", url, resp.Status)
	}
}
