package ingress

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// The backends: Services of one Deployment, each with a port of the pods of its own, so that
// three pods are ten backends.
var backends = map[string]int{"a": 8081, "b": 8082, "c": 8083, "d": 8084, "many": 8080, "tls": 8443, "grpc": 9000}

// backendOf is the backend whose port it is.
func backendOf(port int) string {
	for name, p := range backends {
		if p == port {
			return name
		}
	}
	return fmt.Sprint("at port ", port)
}

// podCount is how many pods are behind the Services.
const podCount = 3

// backendObjects are the pods and their Services. The Service named has a port by name, and
// finds that of the pods by name.
func backendObjects() string {
	objects := fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: %d
  selector: {matchLabels: {app: echo}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: echo
        image: ECHO
        env:
        - {name: DRAIN, value: 3s}
        - {name: MORE_PORTS, value: "8081,8082,8083,8084"}
        - {name: TLS_PORT, value: "8443"}
        - {name: GRPC_PORT, value: "9000"}
        ports: [{containerPort: 8080, name: many}, {containerPort: 8081, name: web}]
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: named}
spec:
  selector: {app: echo}
  ports: [{name: other, port: 81, targetPort: 8082}, {name: http, port: 80, targetPort: web}]
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: external}
spec: {type: ExternalName, externalName: c.NAMESPACE.svc.cluster.local, ports: [{port: 80}]}
`, podCount)
	for name, port := range backends {
		objects += fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {selector: {app: echo}, ports: [{port: 80, targetPort: %d}]}
`, name, port)
	}
	return objects
}

// withBackends makes the backends and waits for their pods.
func (s *scene) withBackends() {
	s.Helper()
	s.apply(strings.ReplaceAll(backendObjects(), "NAMESPACE", s.ns))
	s.pods("app=echo", podCount)
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
			story = append(story, fmt.Sprintf("%s: %s %v", p.Name, p.Status.Phase, p.Status.Conditions))
		}
		return len(ready) == n && len(pods) == n, strings.Join(story, "\n")
	})
	if err != nil {
		s.Fatalf("wait for %d pods with %s: %v", n, label, err)
	}
	return ready
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

// rule is an Ingress's rule for one host and path, as YAML in one line.
func rule(host, pathType, path, backend string) string {
	return fmt.Sprintf("{host: %q, http: {paths: [{path: %q, pathType: %s, backend: {service: {name: %s, port: {number: 80}}}}]}}", host, path, pathType, backend)
}

// simple is an Ingress with rules, of the default class.
func simple(name string, rules ...string) string {
	return fmt.Sprintf("metadata: {name: %s}\nspec: {rules: [%s]}\n", name, strings.Join(rules, ", "))
}
