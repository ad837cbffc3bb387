package nodeip

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
	"github.com/k3m-io/k3m/sdk/nodestatus"
	"github.com/k3m-io/k3m/test/apiserver"
	"github.com/k3m-io/k3m/test/harness"
)

// fixture is a real API server with the component's own identity, which has the rights of
// its Info and no other.
type fixture struct {
	t          *testing.T
	admin      kubernetes.Interface
	objects    dynamic.Interface
	kubeconfig string
	ns         string
}

var nodeComponentsResource = schema.GroupVersionResource{
	Group: nodestatus.Group, Version: nodestatus.Version, Resource: nodestatus.NodeComponentsResource}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	config := apiserver.Start(t)
	f := &fixture{t: t, admin: kubernetes.NewForConfigOrDie(config), objects: dynamic.NewForConfigOrDie(config), ns: "default"}
	f.defineNodeComponents()
	f.kubeconfig = f.identify(config)
	return f
}

// defineNodeComponents makes the CRD, as far as the component reads it.
func (f *fixture) defineNodeComponents() {
	f.t.Helper()
	var definition unstructured.Unstructured
	err := json.Unmarshal(fmt.Appendf(nil, `{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": {"name": "%[1]s.%[2]s"},
		"spec": {
			"group": %[2]q, "scope": "Cluster", "names": {"plural": %[1]q, "kind": %[3]q},
			"versions": [{"name": %[4]q, "served": true, "storage": true,
				"schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]
		}}`, nodestatus.NodeComponentsResource, nodestatus.Group, nodestatus.NodeComponentsKind, nodestatus.Version), &definition)
	if err != nil {
		f.t.Fatal(err)
	}
	crds := f.objects.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	if _, err := crds.Create(f.t.Context(), &definition, metav1.CreateOptions{}); err != nil {
		f.t.Fatal(err)
	}
	err = wait.PollUntilContextTimeout(f.t.Context(), 20*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		_, err := f.objects.Resource(nodeComponentsResource).List(ctx, metav1.ListOptions{})
		return err == nil, nil
	})
	if err != nil {
		f.t.Fatalf("the CRD is not served: %v", err)
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
	if _, err := f.admin.RbacV1().ClusterRoles().Create(f.t.Context(), role, metav1.CreateOptions{}); err != nil {
		f.t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}}}
	if _, err := f.admin.RbacV1().ClusterRoleBindings().Create(f.t.Context(), binding, metav1.CreateOptions{}); err != nil {
		f.t.Fatal(err)
	}
	return apiserver.Kubeconfig(f.t, config, name+":server-1", name)
}

// run starts the component over gRPC, as k3m does but for the process, on a server of that
// name. It returns when the component is ready, which is after its first decision.
func (f *fixture) run(nodeName, config string) (p *plugin, stop func()) {
	f.t.Helper()
	listener, server := bufconn.Listen(1<<16), grpc.NewServer()
	p = New().(*plugin)
	var out testLog
	sdk.Register(server, p, hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug}), func() {})
	go func() { _ = server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.t.Fatal(err)
	}
	c := client.New(conn)
	reports, ended := make(chan client.Report, 100), make(chan error, 1)
	go func() {
		ended <- c.Run(context.Background(), client.RunRequest{Facts: sdk.Facts{NodeName: nodeName,
			ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}}, Kubeconfig: f.kubeconfig,
			Config: json.RawMessage(config), StateDir: f.t.TempDir()}, func(r client.Report) { reports <- r })
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			if err := c.Stop(context.Background()); err != nil {
				f.t.Errorf("stop: %v", err)
			}
			if err := <-ended; err != nil {
				f.t.Errorf("run: %v", err)
			}
			_ = conn.Close()
			server.Stop()
			if f.t.Failed() {
				f.t.Logf("the component's log:\n%s", out.String())
			}
		})
	}
	f.t.Cleanup(stop)
	deadline := time.After(time.Minute)
	for {
		select {
		case r := <-reports:
			if _, is := r.(client.Ready); is {
				return p, stop
			}
			f.t.Logf("%#v", r)
		case <-deadline:
			f.t.Fatalf("the component was never ready:\n%s", out.String())
		}
	}
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

// node makes a Ready node with addresses.
func (f *fixture) node(name string, labels map[string]string, addresses ...corev1.NodeAddress) {
	f.t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	n, err := f.admin.CoreV1().Nodes().Create(f.t.Context(), n, metav1.CreateOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	n.Status.Addresses = addresses
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if _, err := f.admin.CoreV1().Nodes().UpdateStatus(f.t.Context(), n, metav1.UpdateOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

// setReady changes a node's condition.
func (f *fixture) setReady(name string, status corev1.ConditionStatus) {
	f.t.Helper()
	patch := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":%q}]}}`, status)
	if _, err := f.admin.CoreV1().Nodes().Patch(f.t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		f.t.Fatal(err)
	}
}

// label sets or, with "", removes a label of a node.
func (f *fixture) label(node, key, value string) {
	f.t.Helper()
	quoted := fmt.Sprintf("%q", value)
	if value == "" {
		quoted = "null"
	}
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, key, quoted)
	if _, err := f.admin.CoreV1().Nodes().Patch(f.t.Context(), node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

// says writes what a node says: which of its ports have which holder, and whether the
// component serves there.
func (f *fixture) says(node string, serving bool, ports map[port]string) {
	f.t.Helper()
	status := nodestatus.NodeStatus{Components: []nodestatus.ComponentState{{ID: id, Serving: serving}}}
	for p, holder := range ports {
		status.Ports = append(status.Ports, nodestatus.PortHolder{Protocol: p.protocol, Port: p.number, Holder: holder})
	}
	raw, err := json.Marshal(map[string]any{
		"apiVersion": nodestatus.Group + "/" + nodestatus.Version, "kind": nodestatus.NodeComponentsKind,
		"metadata": map[string]any{"name": node}, "status": status})
	if err != nil {
		f.t.Fatal(err)
	}
	force := true
	_, err = f.objects.Resource(nodeComponentsResource).Patch(f.t.Context(), node, types.ApplyPatchType, raw,
		metav1.PatchOptions{FieldManager: "test", Force: &force})
	if err != nil {
		f.t.Fatal(err)
	}
}

// service makes a Service of type LoadBalancer, which the subtest t removes.
func (f *fixture) service(t *testing.T, name string, number int32, change ...func(*corev1.Service)) *corev1.Service {
	t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: number}}}}
	for _, c := range change {
		c(s)
	}
	s, err := f.admin.CoreV1().Services(f.ns).Create(t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.remove(t, name) })
	return s
}

func (f *fixture) remove(t *testing.T, name string) {
	t.Helper()
	err := f.admin.CoreV1().Services(f.ns).Delete(context.Background(), name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// patch changes a Service's spec.
func (f *fixture) patch(t *testing.T, name, spec string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":%s}`, spec)
	if _, err := f.admin.CoreV1().Services(f.ns).Patch(t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// has waits until a Service's status has the addresses.
func (f *fixture) has(t *testing.T, name, want string) *corev1.Service {
	t.Helper()
	return f.wait(t, name, func(s *corev1.Service) bool { return ips(s) == want })
}

// wait waits until a Service is as wanted.
func (f *fixture) wait(t *testing.T, name string, is func(*corev1.Service) bool) *corev1.Service {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, fmt.Errorf("Service %s is not as wanted", name))
	defer cancel()
	var found *corev1.Service
	err := harness.Wait(ctx, f.admin.CoreV1().Services(f.ns), name, func(s *corev1.Service) (bool, string) {
		found = s
		return is(s), fmt.Sprintf("it has %+v", s.Status.LoadBalancer.Ingress)
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func ips(s *corev1.Service) string {
	var all []string
	for _, i := range s.Status.LoadBalancer.Ingress {
		all = append(all, i.IP)
	}
	return strings.Join(all, " ")
}

// warned waits for an Event about a Service whose message has the words.
func (f *fixture) warned(t *testing.T, s *corev1.Service, reason, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, fmt.Errorf("no Event %s of %s says %q", reason, s.Name, words))
	defer cancel()
	_, err := harness.WaitAny(ctx, f.admin.CoreV1().Events(f.ns), "", func(e *corev1.Event) (bool, string) {
		return e.InvolvedObject.UID == s.UID && e.Reason == reason && strings.Contains(e.Message, words),
			fmt.Sprintf("%s: %s: %s", e.InvolvedObject.Name, e.Reason, e.Message)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pending waits for the Event and sees that the Service has no address.
func (f *fixture) pending(t *testing.T, s *corev1.Service, words string) {
	t.Helper()
	f.warned(t, s, reasonTaken, words)
	f.has(t, s.Name, "")
}
