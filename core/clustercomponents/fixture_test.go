package clustercomponents_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
