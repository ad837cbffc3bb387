package metricsserver

import "encoding/json"

// The Service that the API server finds the component by.
const (
	serviceNamespace = "kube-system"
	serviceName      = "metrics-server"
	portName         = "https"
)

// objects are upstream's Service, without a selector, and its APIService, which names the
// authority of the serving certificate instead of trusting whoever answers.
func objects() []json.RawMessage {
	return []json.RawMessage{
		json.RawMessage(`{
  "apiVersion": "v1",
  "kind": "Service",
  "metadata": {"name": "metrics-server", "namespace": "kube-system", "labels": {"k8s-app": "metrics-server"}},
  "spec": {"ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": "https", "appProtocol": "https"}]}
}`),
		json.RawMessage(`{
  "apiVersion": "apiregistration.k8s.io/v1",
  "kind": "APIService",
  "metadata": {"name": "v1beta1.metrics.k8s.io", "labels": {"k8s-app": "metrics-server"}},
  "spec": {
    "service": {"name": "metrics-server", "namespace": "kube-system", "port": 443},
    "group": "metrics.k8s.io",
    "version": "v1beta1",
    "caBundle": "$(SERVER_CA)",
    "groupPriorityMinimum": 100,
    "versionPriority": 100
  }
}`),
	}
}
