package metricsserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
	"github.com/k3m-io/k3m/test/clusterapi"
)

// eventually is how long things that take a moment may take on a busy machine.
const eventually = time.Minute

func TestContract(t *testing.T) {
	o := plugintest.Options{
		New:        New,
		Args:       []string{"metrics-server.metrics-server"},
		Config:     json.RawMessage(`{"resolution": "10s", "port": 10251}`),
		BadConfigs: badConfigs,
	}
	self, err := os.Executable()
	must(t, err)
	o.Executable = self // see TestMain
	if os.Getuid() != 0 {
		o.SkipRun = "needs root, for a network namespace with a pod gateway"
		plugintest.Run(t, o)
		return
	}
	api, err := clusterapi.Start(t.Context())
	must(t, err)
	t.Cleanup(func() {
		if err := api.Stop(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	o.Kubeconfig, err = api.Identify(t.Context(), dir, New().Info())
	must(t, err)
	o.ServingCert, o.ServingKey = filepath.Join(dir, "serving.crt"), filepath.Join(dir, "serving.key")
	renew := func(t *testing.T) {
		cert, key, err := api.Serving("metrics-server", false, []string{"metrics-server.kube-system.svc"})
		must(t, err)
		must(t, os.WriteFile(o.ServingKey, key, 0o600))
		must(t, os.WriteFile(o.ServingCert, cert, 0o600))
	}
	renew(t)
	o.Facts = sdk.Facts{NodeName: clusterapi.NodeName, PodGateways: []netip.Addr{netip.MustParseAddr(gateway)}}

	good := startKubelet(t, api, "node-1", false)
	impostor := startKubelet(t, api, "node-2", true)
	createObjects(t, api)
	o.WhileReady = func(t *testing.T, _ sdk.Facts) {
		asked := good.asked.Load()
		metricsAreServed(t, api)
		if good.asked.Load() == asked || good.strangers.Load() > 0 {
			t.Errorf("the kubelet was asked %d times, %d times by a stranger", good.asked.Load()-asked, good.strangers.Load())
		}
		if impostor.asked.Load() > 0 {
			t.Error("it asked a kubelet whose certificate the wrong authority signed")
		}
		strangersAreRefused(t)
		before := servingSerial(t, api)
		renew(t)
		waitFor(t, "the renewed certificate", func(context.Context) (bool, error) { return servingSerial(t, api) != before, nil })
	}
	plugintest.Run(t, o)
}

// createObjects does what the server's core does: the objects of Info, and the endpoints.
func createObjects(t *testing.T, api *clusterapi.API) {
	t.Helper()
	ca := base64.StdEncoding.EncodeToString(api.PKI.Server.PEM)
	for i, path := range []string{"/api/v1/namespaces/kube-system/services", "/apis/apiregistration.k8s.io/v1/apiservices"} {
		body := bytes.ReplaceAll(New().Info().Objects[i], []byte("$(SERVER_CA)"), []byte(ca))
		must(t, api.Client.CoreV1().RESTClient().Post().AbsPath(path).SetHeader("Content-Type", "application/json").Body(body).Do(t.Context()).Error())
	}
	name, protocol, port, ready := portName, corev1.ProtocolTCP, int32(defaultPort), true
	_, err := api.Client.DiscoveryV1().EndpointSlices(serviceNamespace).Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "metrics-server-k3m", Labels: map[string]string{discoveryv1.LabelServiceName: serviceName}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{gateway}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
	}, metav1.CreateOptions{})
	must(t, err)
	pods := api.Client.CoreV1().Pods("default")
	waitFor(t, "the default service account", func(ctx context.Context) (bool, error) {
		_, err := api.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
	pod, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "measured"},
		Spec:       corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "c", Image: "registry.k3m.test/none"}}},
	}, metav1.CreateOptions{})
	must(t, err)
	pod.Status.Phase = corev1.PodRunning
	_, err = pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
	must(t, err)
}

// metricsAreServed asks as kubectl top does, through the API server.
func metricsAreServed(t *testing.T, api *clusterapi.API) {
	t.Helper()
	get := func(ctx context.Context, path string, into any) error {
		raw, err := api.Client.CoreV1().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/" + path).Do(ctx).Raw()
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, into)
	}
	var nodes metricsv1beta1.NodeMetricsList
	waitFor(t, "metrics of nodes", func(ctx context.Context) (bool, error) {
		err := get(ctx, "nodes", &nodes) // not available yet
		return err == nil && len(nodes.Items) > 0, nil
	})
	if len(nodes.Items) != 1 || nodes.Items[0].Name != "node-1" {
		t.Errorf("metrics of nodes, want those of node-1 alone: %+v", nodes.Items)
	}
	if cpu := nodes.Items[0].Usage.Cpu().MilliValue(); cpu < 400 || cpu > 600 {
		t.Errorf("node-1 uses %dm of CPU, want 500m", cpu)
	}
	var pod metricsv1beta1.PodMetrics
	waitFor(t, "metrics of the pod", func(ctx context.Context) (bool, error) {
		return get(ctx, "namespaces/default/pods/measured", &pod) == nil, nil
	})
	if memory := pod.Containers[0].Usage.Memory().Value(); memory != 10<<20 {
		t.Errorf("the pod uses %d bytes, want %d", memory, 10<<20)
	}
}

// strangersAreRefused goes past the API server.
func strangersAreRefused(t *testing.T) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // who answers is tested elsewhere
	for what, header := range map[string]http.Header{
		"nobody":         {},
		"a pretender":    {"X-Remote-User": {"admin"}, "X-Remote-Group": {"system:masters"}},
		"a wrong bearer": {"Authorization": {"Bearer nonsense"}},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("https://%s:%d/apis/metrics.k8s.io/v1beta1/nodes", gateway, defaultPort), nil)
		must(t, err)
		request.Header = header
		response, err := client.Do(request)
		must(t, err)
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden && response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s is answered %s", what, response.Status)
		}
	}
}

// servingSerial is the number of the certificate that is shown, which must be good for the
// Service's name.
func servingSerial(t *testing.T, api *clusterapi.API) string {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: api.PKI.Server.Pool(), ServerName: "metrics-server.kube-system.svc", MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(t.Context(), "tcp", fmt.Sprintf("%s:%d", gateway, defaultPort))
	must(t, err)
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func waitFor(t *testing.T, what string, condition wait.ConditionWithContextFunc) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, eventually, true, condition); err != nil {
		t.Fatalf("wait for %s: %v", what, err)
	}
}

func TestVersionIsMetricsServers(t *testing.T) {
	raw, err := os.ReadFile("../../../go.mod")
	must(t, err)
	required := regexp.MustCompile(`sigs.k8s.io/metrics-server v(\S+)`).FindSubmatch(raw)
	if required == nil || string(required[1]) != version {
		t.Errorf("go.mod requires metrics-server %s, the component says %s", required, version)
	}
}
