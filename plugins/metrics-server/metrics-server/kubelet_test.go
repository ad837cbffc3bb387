package metricsserver

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/clusterapi"
)

// kubelet stands in for a node's: it answers /metrics/resource, for one container that uses
// half a core, to whom the component's certificate is shown.
type kubelet struct {
	asked     atomic.Int64
	strangers atomic.Int64
}

// startKubelet adds a Node that is ready. An impostor's certificate is signed by the wrong
// authority of the cluster.
func startKubelet(t *testing.T, api *clusterapi.API, node string, impostor bool) *kubelet {
	t.Helper()
	cert, key, err := api.Serving("system:node:"+node, impostor, nil, netip.MustParseAddr("127.0.0.1"))
	must(t, err)
	pair, err := tls.X509KeyPair(cert, key)
	must(t, err)
	k := &kubelet{}
	server := httptest.NewUnstartedServer(k)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: api.PKI.Client.Pool()}
	server.StartTLS()
	t.Cleanup(server.Close)

	port := int32(server.Listener.Addr().(*net.TCPAddr).Port)
	nodes := api.Client.CoreV1().Nodes()
	object, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
	must(t, err)
	object.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: node}, {Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	object.Status.DaemonEndpoints.KubeletEndpoint.Port = port
	object.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}}
	_, err = nodes.UpdateStatus(t.Context(), object, metav1.UpdateOptions{})
	must(t, err)
	return k
}

func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user := r.TLS.PeerCertificates[0].Subject.CommonName; user != "k3m:component:metrics-server.metrics-server:"+clusterapi.NodeName {
		k.strangers.Add(1)
		http.Error(w, "a stranger: "+user, http.StatusForbidden)
		return
	}
	if r.URL.Path != "/metrics/resource" {
		http.NotFound(w, r)
		return
	}
	k.asked.Add(1)
	now := time.Now()
	used := strconv.FormatFloat(float64(now.UnixMilli())/2000, 'f', 3, 64)
	ms := now.UnixMilli()
	container := `{container="c",namespace="default",pod="measured"}`
	fmt.Fprintf(w, "# TYPE node_cpu_usage_seconds_total counter\nnode_cpu_usage_seconds_total %s %d\n", used, ms)
	fmt.Fprintf(w, "# TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes 1.073741824e+09 %d\n", ms)
	fmt.Fprintf(w, "# TYPE container_cpu_usage_seconds_total counter\ncontainer_cpu_usage_seconds_total%s %s %d\n", container, used, ms)
	fmt.Fprintf(w, "# TYPE container_memory_working_set_bytes gauge\ncontainer_memory_working_set_bytes%s 1.048576e+07 %d\n", container, ms)
	fmt.Fprintf(w, "# TYPE container_start_time_seconds gauge\ncontainer_start_time_seconds%s 1.7e+09 %d\n", container, ms)
}
