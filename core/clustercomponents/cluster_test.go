package clustercomponents_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/core/clustercomponents"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

func resource(name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: nodestatus.Group, Version: nodestatus.Version, Resource: name}
}

// dns is a component of every node that serves the Service test-dns, and owns it.
func dns() sdk.Info {
	return sdk.Info{
		Kind: "dns", Name: "test", Version: "1.2.3", Summary: "answers", Scope: sdk.NodeScope, Services: []string{"kube-system/test-dns"},
		Labels: map[string]string{"k8s-app": "test-dns"},
		Objects: []json.RawMessage{
			json.RawMessage(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"test-dns","namespace":"kube-system"},"spec":{
				"clusterIP":"$(CLUSTER_DNS)","clusterIPs":["$(CLUSTER_DNS)"],"trafficDistribution":"PreferSameNode",
				"ports":[{"name":"dns","protocol":"UDP","port":53},{"name":"dns-tcp","port":53}]}}`),
			json.RawMessage(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"test-dns","namespace":"kube-system"},
				"data":{"domain":"the $(CLUSTER_DOMAIN)","ca":"$(SERVER_CA)"}}`),
		},
	}
}

// answers is what a node says of dns.
func answers(state string, addresses ...string) nodestatus.NodeStatus {
	c := nodestatus.ComponentState{ID: "dns.test", Version: "1.2.3", State: state, Serving: state == "Ready", Since: time.Now()}
	if len(addresses) > 0 {
		c.Endpoints = []nodestatus.Endpoint{{Service: "kube-system/test-dns", Addresses: addresses, Ports: []nodestatus.Port{
			{Name: "dns", Protocol: "UDP", Port: 53}, {Name: "dns-tcp", Protocol: "TCP", Port: 53}}}}
	}
	return nodestatus.NodeStatus{Components: []nodestatus.ComponentState{c}}
}

// testNode is a node whose kubelet the test plays.
type testNode struct {
	t      *testing.T
	name   string
	writer *clustercomponents.Node
	stop   func()
}

func addNode(t *testing.T, name, podCIDR string, addresses ...string) *testNode {
	t.Helper()
	node, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: podCIDR, PodCIDRs: []string{podCIDR}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{}) })
	n := &testNode{t: t, name: node.Name}
	var own []corev1.NodeAddress
	for _, a := range addresses {
		own = append(own, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": own}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Nodes().Patch(t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	if err := n.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	asNode := rest.CopyConfig(admin)
	asNode.Impersonate = rest.ImpersonationConfig{UserName: "system:node:" + name, Groups: []string{"system:nodes", "system:authenticated"}}
	n.writer, err = clustercomponents.NewNode(clustercomponents.NodeOptions{
		Config: asNode, Name: name, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.stop = start(t, n.writer.Run)
	return n
}

// beat is the kubelet's word that the node is ready; it is good for the controller-manager's
// grace period.
func (n *testNode) beat(ctx context.Context) error {
	patch := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
	_, err := client.CoreV1().Nodes().Patch(ctx, n.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if ctx.Err() != nil || apierrors.IsNotFound(err) {
		return nil //nolint:nilerr // the test is over
	}
	return err
}

// live keeps a node's heart beating until the returned function is called.
func (n *testNode) live() (stop func()) {
	return start(n.t, func(ctx context.Context) error {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			if err := n.beat(ctx); err != nil {
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
}

func (n *testNode) says(status nodestatus.NodeStatus) {
	n.writer.Update(func(s *nodestatus.NodeStatus) { *s = status })
}

// served are the endpoints of a Service that k3m publishes: "<address>@<node>", sorted, with the
// hinted node behind an arrow.
func served(ctx context.Context, service string) (out []string, err error) {
	list, err := client.DiscoveryV1().EndpointSlices("kube-system").List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + service + "," + discoveryv1.LabelManagedBy + "=k3m",
	})
	if err != nil {
		return nil, err
	}
	for _, s := range list.Items {
		for _, e := range s.Endpoints {
			text := e.Addresses[0] + "@" + *e.NodeName
			if e.Hints != nil {
				text += "->" + e.Hints.ForNodes[0].Name
			}
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return out, nil
}

func wantServed(t *testing.T, service string, want ...string) {
	t.Helper()
	eventually(t, "endpoints of "+service, func(ctx context.Context) error {
		got, err := served(ctx, service)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("%v, want %v", got, want)
		}
		return err
	})
}

func wantComponent(t *testing.T, id string, check func(nodestatus.Component) error) types.UID {
	t.Helper()
	var uid types.UID
	eventually(t, "Component "+id, func(ctx context.Context) error {
		object, err := objects.Resource(resource("components")).Get(ctx, id, metav1.GetOptions{})
		if err != nil {
			return err
		}
		uid = object.GetUID()
		data, err := object.MarshalJSON()
		if err != nil {
			return err
		}
		var c nodestatus.Component
		if err := json.Unmarshal(data, &c); err != nil {
			return err
		}
		return check(c)
	})
	return uid
}

func wantState(state, ready string) func(nodestatus.Component) error {
	return func(c nodestatus.Component) error {
		if c.Status.State != state || c.Status.Ready != ready {
			return fmt.Errorf("%s %s, want %s %s", c.Status.State, c.Status.Ready, state, ready)
		}
		return nil
	}
}

func wantObjects(n int) func(nodestatus.Component) error {
	return func(c nodestatus.Component) error {
		if len(c.Status.Objects) != n {
			return fmt.Errorf("objects %v, want %d", c.Status.Objects, n)
		}
		return nil
	}
}

func gone(t *testing.T, what string, get func(context.Context) error) {
	t.Helper()
	eventually(t, what+" is removed", func(ctx context.Context) error {
		err := get(ctx)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("it is there"), err)
	})
}

func getService(ctx context.Context) error {
	_, err := client.CoreV1().Services("kube-system").Get(ctx, "test-dns", metav1.GetOptions{})
	return err
}

func TestServedEndpoints(t *testing.T) {
	c, _ := keep(t, dns())
	one, two := addNode(t, "node-1", "10.42.1.0/24", "192.0.2.1"), addNode(t, "node-2", "10.42.2.0/24", "192.0.2.2")
	one.live()
	stopTwo := two.live()
	one.says(answers("Ready", "10.42.1.1"))
	two.says(answers("Ready", "10.42.2.1"))
	both := []string{"10.42.1.1@node-1->node-1", "10.42.2.1@node-2->node-2"}
	wantServed(t, "test-dns", both...)
	wantComponent(t, "dns.test", wantState("Ready", "2/2"))

	t.Run("labels are the server's, not a node's", func(t *testing.T) {
		forged := answers("Ready", "10.42.1.1")
		forged.Components[0].Labels = map[string]string{"k8s-app": "forged"}
		forged.Components[0].Restarts = 7 // so that the summary has seen it
		one.says(forged)
		wantComponent(t, "dns.test", func(c nodestatus.Component) error {
			if c.Status.Restarts != 7 || len(c.Spec.Labels) != 1 || c.Spec.Labels["k8s-app"] != "test-dns" {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
		one.says(answers("Ready", "10.42.1.1"))
	})
	t.Run("a component that fails", func(t *testing.T) {
		one.says(answers("Backoff"))
		wantServed(t, "test-dns", both[1])
		one.says(answers("Ready", "10.42.1.1"))
		wantServed(t, "test-dns", both...)
	})
	t.Run("addresses of others", func(t *testing.T) {
		for what, address := range map[string]string{
			"a pod gateway of another node": "10.42.2.1", "a pod of another node": "10.42.2.77", "another node": "192.0.2.2",
			"a Service": "10.43.0.1", "nobody": "198.51.100.1",
		} {
			one.says(answers("Ready", address))
			wantServed(t, "test-dns", both[1])
			_ = what
			one.says(answers("Ready", "10.42.1.1"))
			wantServed(t, "test-dns", both...)
		}
		one.says(answers("Ready", "192.0.2.1"))
		wantServed(t, "test-dns", "10.42.2.1@node-2->node-2", "192.0.2.1@node-1->node-1")
		// A younger node that says it had the address.
		three := addNode(t, "node-0", "10.42.3.0/24", "192.0.2.1")
		three.live()
		three.says(answers("Ready", "192.0.2.1"))
		wantComponent(t, "dns.test", wantState("Ready", "3/3"))
		wantServed(t, "test-dns", "10.42.2.1@node-2->node-2", "192.0.2.1@node-1->node-1")
		one.says(answers("Ready", "10.42.1.1"))
		wantServed(t, "test-dns", both...)
	})
	t.Run("a slice that was changed by hand", func(t *testing.T) {
		list, err := client.DiscoveryV1().EndpointSlices("kube-system").List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelManagedBy + "=k3m"})
		if err != nil || len(list.Items) != 1 {
			t.Fatalf("%d slices, %v", len(list.Items), err)
		}
		slice := list.Items[0]
		slice.Endpoints = slice.Endpoints[:1]
		if _, err := client.DiscoveryV1().EndpointSlices("kube-system").Update(t.Context(), &slice, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		wantServed(t, "test-dns", both...)
		if err := client.DiscoveryV1().EndpointSlices("kube-system").Delete(t.Context(), slice.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		wantServed(t, "test-dns", both...)
	})
	t.Run("a node that is lost", func(t *testing.T) {
		stopTwo()
		wantServed(t, "test-dns", both[0])
		wantComponent(t, "dns.test", func(c nodestatus.Component) error {
			if c.Status.State != "NodeLost" || c.Status.Ready != "2/3" && c.Status.Ready != "1/2" {
				return fmt.Errorf("%+v", c.Status)
			}
			return nil
		})
	})
	t.Run("a node that is gone", func(t *testing.T) {
		one.stop()
		if err := client.CoreV1().Nodes().Delete(t.Context(), "node-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		wantServed(t, "test-dns")
		gone(t, "what the node said", func(ctx context.Context) error {
			_, err := objects.Resource(resource("nodecomponents")).Get(ctx, "node-1", metav1.GetOptions{})
			return err
		})
	})
	t.Run("a component that is not selected any more", func(t *testing.T) {
		c.SetSelected(nil)
		gone(t, "the Service", getService)
		gone(t, "the Component", func(ctx context.Context) error {
			_, err := objects.Resource(resource("components")).Get(ctx, "dns.test", metav1.GetOptions{})
			return err
		})
	})
}

// What a node says last, when its components stop with it, gets into the API before the runs end.
func TestLastWord(t *testing.T) {
	c, stopCluster := keep(t, dns())
	node := addNode(t, "last-1", "10.42.31.0/24")
	node.live()
	node.says(answers("Ready", "10.42.31.1"))
	wantServed(t, "test-dns", "10.42.31.1@last-1->last-1")
	for range 20 { // more than what is written at once
		node.says(answers("Backoff"))
		node.says(answers("Ready", "10.42.31.1"))
	}
	node.says(answers("Stopped"))
	node.stop()
	c.Withdraw("last-1")
	stopCluster()
	object, err := objects.Resource(resource("nodecomponents")).Get(t.Context(), "last-1", metav1.GetOptions{})
	if err != nil || !strings.Contains(fmt.Sprint(object.Object["status"]), "state:Stopped") {
		t.Errorf("the node says %v, %v", object, err)
	}
	if got, err := served(t.Context(), "test-dns"); err != nil || len(got) > 0 {
		t.Errorf("endpoints %v, %v", got, err)
	}
}

func TestNodesWriteTheirOwn(t *testing.T) {
	keep(t)
	one := addNode(t, "own-1", "10.42.11.0/24")
	addNode(t, "own-2", "10.42.12.0/24")
	one.says(answers("Ready"))
	eventually(t, "what the node says", func(ctx context.Context) error {
		_, err := objects.Resource(resource("nodecomponents")).Get(ctx, "own-1", metav1.GetOptions{})
		return err
	})
	t.Run("and nobody else's", func(t *testing.T) {
		asOne := rest.CopyConfig(admin)
		asOne.Impersonate = rest.ImpersonationConfig{UserName: "system:node:own-1", Groups: []string{"system:nodes", "system:authenticated"}}
		forged, err := clustercomponents.NewNode(clustercomponents.NodeOptions{
			Config: asOne, Name: "own-2", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		err = clustercomponents.WriteAs(t.Context(), forged, answers("Ready"), "some-uid")
		if err == nil || !strings.Contains(err.Error(), "of its own name alone") {
			t.Errorf("own-1 writes as own-2: %v", err)
		}
	})
	t.Run("again when it was removed", func(t *testing.T) {
		before, err := objects.Resource(resource("nodecomponents")).Get(t.Context(), "own-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := objects.Resource(resource("nodecomponents")).Delete(t.Context(), "own-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is there again", func(ctx context.Context) error {
			after, err := objects.Resource(resource("nodecomponents")).Get(ctx, "own-1", metav1.GetOptions{})
			if err == nil && after.GetUID() == before.GetUID() {
				err = errors.New("it is the old one")
			}
			return err
		})
	})
	t.Run("on change alone", func(t *testing.T) {
		generation := func() int64 {
			o, err := objects.Resource(resource("nodecomponents")).Get(t.Context(), "own-1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return o.GetGeneration()
		}
		before := generation()
		since := time.Now()
		for n := range 50 { // the last one counts
			one.writer.Update(func(s *nodestatus.NodeStatus) {
				s.Components = slices.Clone(s.Components)
				s.Components[0].Since, s.Components[0].Restarts = since, n
			})
		}
		eventually(t, "the last change", func(ctx context.Context) error {
			o, err := objects.Resource(resource("nodecomponents")).Get(ctx, "own-1", metav1.GetOptions{})
			if err == nil && !strings.Contains(fmt.Sprint(o.Object["status"]), "restarts:49") {
				err = fmt.Errorf("%v", o.Object["status"])
			}
			return err
		})
		if writes := generation() - before; writes > 6 {
			t.Errorf("50 changes in a row were %d writes", writes)
		}
	})
}

func TestObjects(t *testing.T) {
	c, stop := keep(t, dns())
	eventually(t, "the Service", func(ctx context.Context) error {
		s, err := client.CoreV1().Services("kube-system").Get(ctx, "test-dns", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s.Spec.ClusterIP != "10.43.0.10" || s.Labels["k3m.io/component"] != "dns.test" || s.Labels["app.kubernetes.io/managed-by"] != "k3m" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	configMaps := client.CoreV1().ConfigMaps("kube-system")
	wantConfigMap := func(t *testing.T) {
		t.Helper()
		eventually(t, "the ConfigMap", func(ctx context.Context) error {
			m, err := configMaps.Get(ctx, "test-dns", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if m.Data["domain"] != "the cluster.local" || m.Data["ca"] != "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==" {
				return fmt.Errorf("data %v", m.Data)
			}
			return nil
		})
	}
	wantConfigMap(t)
	wantComponent(t, "dns.test", wantObjects(2))
	t.Run("changed by hand", func(t *testing.T) {
		patch := []byte(`{"data":{"domain":"mine","more":"of mine"},"metadata":{"labels":{"k3m.io/component":null}}}`)
		if _, err := configMaps.Patch(t.Context(), "test-dns", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		wantConfigMap(t)
	})
	t.Run("removed by hand", func(t *testing.T) {
		if err := configMaps.Delete(t.Context(), "test-dns", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		wantConfigMap(t)
	})
	t.Run("a part of them goes", func(t *testing.T) {
		less := dns()
		less.Objects = less.Objects[:1]
		c.SetSelected([]sdk.Info{less})
		gone(t, "the ConfigMap", func(ctx context.Context) error {
			_, err := configMaps.Get(ctx, "test-dns", metav1.GetOptions{})
			return err
		})
		if err := getService(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("a swap keeps what both own", func(t *testing.T) {
		s, err := client.CoreV1().Services("kube-system").Get(t.Context(), "test-dns", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		other := dns()
		other.Name = "other"
		c.SetSelected([]sdk.Info{other, dns()}) // both run for a moment
		wantComponent(t, "dns.other", wantObjects(2))
		wantComponent(t, "dns.test", wantObjects(0))
		c.SetSelected([]sdk.Info{other})
		gone(t, "the old Component", func(ctx context.Context) error {
			_, err := objects.Resource(resource("components")).Get(ctx, "dns.test", metav1.GetOptions{})
			return err
		})
		after, err := client.CoreV1().Services("kube-system").Get(t.Context(), "test-dns", metav1.GetOptions{})
		if err != nil || after.UID != s.UID || after.Labels["k3m.io/component"] != "dns.other" {
			t.Errorf("the Service: %v, %v", after.ObjectMeta, err)
		}
	})
	t.Run("an object that moves to a later component", func(t *testing.T) {
		before, err := client.CoreV1().Services("kube-system").Get(t.Context(), "test-dns", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		without, heir := dns(), dns()
		without.Name, without.Objects, heir.Name = "other", nil, "heir"
		c.SetSelected([]sdk.Info{without, heir})
		wantComponent(t, "dns.heir", wantObjects(2))
		wantComponent(t, "dns.other", wantObjects(0)) // off its record when it is the other's
		after, err := client.CoreV1().Services("kube-system").Get(t.Context(), "test-dns", metav1.GetOptions{})
		if err != nil || after.UID != before.UID || after.Labels["k3m.io/component"] != "dns.heir" {
			t.Errorf("the Service: %v, %v", after, err)
		}
	})
	t.Run("a server that was down meanwhile", func(t *testing.T) {
		stop()
		_, stopNext := keep(t)
		gone(t, "the Service", getService)
		stopNext()
	})
}

// An APIService whose Service the component serves is there once somebody serves it, and stays.
func TestAPIServices(t *testing.T) {
	opened := func(name, service string) json.RawMessage {
		return fmt.Appendf(nil, `{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v1.%[1]s"},"spec":{
			"group":"%[1]s","version":"v1","groupPriorityMinimum":100,"versionPriority":100,"insecureSkipTLSVerify":true,
			"service":{"namespace":"kube-system","name":"%[2]s"}}}`, name, service)
	}
	info := dns()
	info.Objects = append(info.Objects, opened("own.example.org", "test-dns"), opened("pods.example.org", "of-pods"))
	c, _ := keep(t, info)
	apis := objects.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
	get := func(ctx context.Context, name string) error {
		_, err := apis.Get(ctx, name, metav1.GetOptions{})
		return err
	}
	node := addNode(t, "api-1", "10.42.41.0/24")
	node.live()
	node.says(answers("Starting"))
	wantComponent(t, "dns.test", wantState("Starting", "0/1"))
	eventually(t, "the APIService of pods", func(ctx context.Context) error { return get(ctx, "v1.pods.example.org") })
	if err := get(t.Context(), "v1.own.example.org"); !apierrors.IsNotFound(err) {
		t.Errorf("an APIService that nobody serves: %v", err)
	}
	node.says(answers("Ready", "10.42.41.1"))
	eventually(t, "the APIService", func(ctx context.Context) error { return get(ctx, "v1.own.example.org") })
	node.says(answers("Backoff"))
	wantServed(t, "test-dns")
	wantComponent(t, "dns.test", wantState("Backoff", "0/1"))
	if err := apis.Delete(t.Context(), "v1.own.example.org", metav1.DeleteOptions{}); err != nil {
		t.Errorf("it is there no more: %v", err)
	}
	eventually(t, "the APIService again", func(ctx context.Context) error { return get(ctx, "v1.own.example.org") })
	c.SetSelected(nil)
	for _, name := range []string{"v1.own.example.org", "v1.pods.example.org"} {
		gone(t, name, func(ctx context.Context) error { return get(ctx, name) })
	}
}

func TestEvents(t *testing.T) {
	keep(t, dns())
	node := addNode(t, "event-1", "10.42.21.0/24")
	node.live()
	node.says(answers("Ready"))
	wantComponent(t, "dns.test", wantState("Ready", "1/1"))
	broken := answers("Refused")
	broken.Components[0].Reason = "its file has changed"
	node.says(broken)
	wantComponent(t, "dns.test", wantState("Refused", "0/1"))
	node.says(answers("Ready"))
	wantComponent(t, "dns.test", wantState("Ready", "1/1"))
	killed := answers("Ready") // so quickly that nobody saw it down
	killed.Components[0].Restarts, killed.Components[0].LastError, killed.Components[0].LastErrorTime = 1, "it was killed", time.Now()
	node.says(killed)
	uid := wantComponent(t, "dns.test", func(c nodestatus.Component) error {
		if c.Status.Restarts != 1 {
			return fmt.Errorf("%+v", c.Status)
		}
		return nil
	})
	eventually(t, "Events", func(ctx context.Context) error {
		list, err := client.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(uid)})
		if err != nil {
			return err
		}
		var got []string
		for _, e := range list.Items {
			got = append(got, fmt.Sprintf("%s %s (%d): %s", e.Type, e.Reason, e.Count, e.Message))
		}
		slices.Sort(got)
		want := []string{
			"Normal Ready (2): ready again on node event-1", "Warning Failed (1): on node event-1: it was killed",
			"Warning Refused (1): on node event-1: its file has changed",
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
}
