package nginx

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
	"github.com/k3m-io/k3m/test/apiserver"
)

// node is the component's node, nodeIP its address (see prepare).
const node, nodeIP = "node-1", "192.0.2.2"

// fixture is a real API server with the component's own identity, which has the rights of
// its Info and no other.
type fixture struct {
	t          *testing.T
	admin      kubernetes.Interface
	kubeconfig string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	needNetwork(t)
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Fatal("needs nginx: apt-get install nginx-light")
	}
	config := apiserver.Start(t)
	f := &fixture{t: t, admin: kubernetes.NewForConfigOrDie(config)}
	f.kubeconfig = f.identify(config)
	f.class(className, true, nil)
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// identify gives the component's identity the rights of its Info.
func (f *fixture) identify(config *rest.Config) string {
	f.t.Helper()
	name := "k3m:component:" + id
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, r := range New().Info().Rules {
		role.Rules = append(role.Rules, rbacv1.PolicyRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources})
	}
	_, err := f.admin.RbacV1().ClusterRoles().Create(f.t.Context(), role, metav1.CreateOptions{})
	must(f.t, err)
	_, err = f.admin.RbacV1().ClusterRoleBindings().Create(f.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}}}, metav1.CreateOptions{})
	must(f.t, err)
	return apiserver.Kubeconfig(f.t, config, name+":"+node, name)
}

// class makes an IngressClass of the component's.
func (f *fixture) class(name string, isDefault bool, parameters *networkingv1.IngressClassParametersReference) {
	f.t.Helper()
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: networkingv1.IngressClassSpec{Controller: controllerName, Parameters: parameters}}
	if isDefault {
		class.Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}
	}
	_, err := f.admin.NetworkingV1().IngressClasses().Create(f.t.Context(), class, metav1.CreateOptions{})
	must(f.t, err)
}

// component is a running component.
type component struct {
	t       *testing.T
	plugin  *plugin
	gateway netip.Addr
	stop    func()
	log     *testLog
	run     string // its run directory

	mu       sync.Mutex
	reports  []client.Report
	reported chan struct{} // holds a token after each report
}

// run starts the component over gRPC, as k3m does but for the process, on a pod gateway.
func (f *fixture) run(t *testing.T, gateway, config string) *component {
	t.Helper()
	listener, server := bufconn.Listen(1<<16), grpc.NewServer()
	c := &component{t: t, plugin: New().(*plugin), gateway: netip.MustParseAddr(gateway), log: &testLog{},
		reported: make(chan struct{}, 1)}
	sdk.Register(server, c.plugin, hclog.New(&hclog.LoggerOptions{Output: c.log, Level: hclog.Debug}), func() {})
	go func() { _ = server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	stateDir, err := os.MkdirTemp("", "k3m") // short: there are sockets in it
	must(t, err)
	c.run = stateDir
	rpc, ended := client.New(conn), make(chan error, 1)
	go func() {
		ended <- rpc.Run(context.Background(), client.RunRequest{
			Facts: sdk.Facts{NodeName: node, NodeIPs: []netip.Addr{netip.MustParseAddr(nodeIP)},
				PodGateways: []netip.Addr{c.gateway}, ClusterDNS: []netip.Addr{netip.MustParseAddr("127.0.0.53")}},
			Kubeconfig: f.kubeconfig, Config: json.RawMessage(config), StateDir: stateDir},
			func(r client.Report) {
				c.mu.Lock()
				c.reports = append(c.reports, r)
				c.mu.Unlock()
				select {
				case c.reported <- struct{}{}:
				default:
				}
			})
	}()
	var once sync.Once
	c.stop = func() {
		once.Do(func() {
			if err := rpc.Stop(context.Background()); err != nil {
				t.Errorf("stop: %v", err)
			}
			if err := <-ended; err != nil {
				t.Errorf("run: %v", err)
			}
			_ = conn.Close()
			server.Stop()
			_ = os.RemoveAll(stateDir)
			if t.Failed() {
				t.Logf("the component's log:\n%s", c.log.String())
			}
		})
	}
	t.Cleanup(c.stop)
	return c
}

// await waits for a report that a test accepts.
func (c *component) await(accept func(client.Report) bool) {
	c.t.Helper()
	deadline := time.After(time.Minute)
	for seen := 0; ; {
		c.mu.Lock()
		fresh := c.reports[seen:]
		seen = len(c.reports)
		c.mu.Unlock()
		for _, r := range fresh {
			if accept(r) {
				return
			}
		}
		select {
		case <-c.reported:
		case <-deadline:
			c.t.Fatalf("not reported; %d reports, the last %+v", seen, fresh)
		}
	}
}

func (c *component) ready() *component {
	c.t.Helper()
	c.await(func(r client.Report) bool { _, is := r.(client.Ready); return is })
	return c
}

// get asks nginx for a URL, whose host need not exist.
func (c *component) get(url string) (status int, body string, err error) {
	response, err := c.client().Get(url) //nolint:noctx // the client has a timeout
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	return response.StatusCode, string(raw), err
}

func (c *component) client() *http.Client {
	return &http.Client{Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a test looks at it itself
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				port := internalHTTP
				if strings.HasSuffix(address, ":443") {
					port = internalHTTPS
				}
				return new(net.Dialer).DialContext(ctx, network, fmt.Sprintf("%s:%d", c.gateway, port))
			}}}
}

// wants waits until a URL is answered so.
func (c *component) wants(url string, status int, contains string) {
	c.t.Helper()
	var last string
	within(c.t, func() bool {
		got, body, err := c.get(url)
		last = fmt.Sprintf("%d %q %v", got, body, err)
		return err == nil && got == status && strings.Contains(body, contains)
	}, func() string { return fmt.Sprintf("%s: %s, want %d %q", url, last, status, contains) })
}

// within waits until something is so; there is no event for it.
func within(t *testing.T, is func() bool, what func() string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatal(what())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// backend is an HTTP server that answers with its name.
func backend(t *testing.T, address, name string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	must(t, err)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s", name, r.Header.Get("X-Forwarded-For"))
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
}

// service makes a Service whose endpoints are given, "10.42.1.1" or with a state:
// "10.42.1.1 terminating".
func (f *fixture) service(t *testing.T, name string, port int32, endpoints ...string) {
	t.Helper()
	_, err := f.admin.CoreV1().Services("default").Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}, metav1.CreateOptions{})
	must(t, err)
	_, err = f.admin.DiscoveryV1().EndpointSlices("default").Create(t.Context(), endpointSlice(name, port, endpoints...), metav1.CreateOptions{})
	must(t, err)
}

func (f *fixture) endpoints(t *testing.T, name string, port int32, endpoints ...string) {
	t.Helper()
	_, err := f.admin.DiscoveryV1().EndpointSlices("default").Update(t.Context(), endpointSlice(name, port, endpoints...), metav1.UpdateOptions{})
	must(t, err)
}

func endpointSlice(name string, port int32, endpoints ...string) *discoveryv1.EndpointSlice {
	portName, protocol := "http", corev1.ProtocolTCP
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &protocol}}}
	for _, e := range endpoints {
		address, state, _ := strings.Cut(e, " ")
		ready, serving, terminating := state == "", true, state == "terminating"
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{address},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}})
	}
	return slice
}

// ingress makes an Ingress of a host's prefix to a Service's port 80.
func (f *fixture) ingress(t *testing.T, name, host, service string, change func(*networkingv1.Ingress)) *networkingv1.Ingress {
	t.Helper()
	prefix, class := networkingv1.PathTypePrefix, className
	i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{}},
		Spec: networkingv1.IngressSpec{IngressClassName: &class, Rules: []networkingv1.IngressRule{{Host: host,
			IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
				Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &prefix, Backend: networkingv1.IngressBackend{
					Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}}}
	if change != nil {
		change(i)
	}
	i, err := f.admin.NetworkingV1().Ingresses("default").Create(t.Context(), i, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		_ = f.admin.NetworkingV1().Ingresses("default").Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	return i
}

// published makes the component's own Service as the core and a load balancer do.
func (f *fixture) published(t *testing.T, addresses ...string) {
	t.Helper()
	services := f.admin.CoreV1().Services(kit.Namespace)
	s, err := services.Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: serviceName},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "https", Port: 443}}}},
		metav1.CreateOptions{})
	must(t, err)
	for _, a := range addresses {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
	}
	_, err = services.UpdateStatus(t.Context(), s, metav1.UpdateOptions{})
	must(t, err)
	slice := endpointSlice(serviceName, internalHTTP, "127.0.0.1")
	name := node
	slice.Endpoints[0].NodeName = &name
	slice.Endpoints[0].Addresses = []string{"10.42.0.1"}
	_, err = f.admin.DiscoveryV1().EndpointSlices(kit.Namespace).Create(t.Context(), slice, metav1.CreateOptions{})
	must(t, err)
}

// testLog collects what the component logs.
type testLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// netListen listens on the machine's addresses.
type netListen struct{ net.ListenConfig }

func (l netListen) listen(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := l.Listen(t.Context(), "tcp", address)
	must(t, err)
	return listener
}
