package apitest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/sdk"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// as returns a client with the credentials of a component on a node.
func as(t *testing.T, admin *rest.Config, info sdk.Info, node string) kubernetes.Interface {
	t.Helper()
	config := rest.CopyConfig(admin)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "k3m:component:" + info.ID() + ":" + node,
		Groups:   append(components.Groups(info), "system:authenticated"),
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

var network = sdk.Info{Kind: "cni", Name: "net", Scope: sdk.NodeScope, Rules: []sdk.Rule{
	{Verbs: []string{"get", "list", "patch", "update", "delete"}, APIGroups: []string{""}, Resources: []string{"nodes", "nodes/status", "pods"}},
	{Verbs: []string{"create", "update", "delete"}, APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}},
}}

var dns = sdk.Info{Kind: "dns", Name: "server", Scope: sdk.ServerScope, Rules: []sdk.Rule{
	{Verbs: []string{"get", "patch"}, APIGroups: []string{""}, Resources: []string{"nodes"}},
}}

func TestAuthorize(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	config := startAPI(t)
	admin := kubernetes.NewForConfigOrDie(config)
	for _, name := range []string{"node-1", "node-11", "1"} {
		if _, err := admin.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	if err := components.Authorize(ctx, admin, []sdk.Info{network, dns, storage}); err != nil {
		t.Fatal(err)
	}
	t.Logf("Authorize took %v", time.Since(start).Round(time.Millisecond))
	one := as(t, config, network, "node-1")

	t.Run("declared rights are there at once", func(t *testing.T) {
		if _, err := one.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("others are refused", func(t *testing.T) {
		if _, err := one.CoreV1().Secrets("").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("list secrets: %v", err)
		}
		if _, err := as(t, config, dns, "node-1").CoreV1().Nodes().List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("list nodes as dns: %v", err)
		}
	})

	annotate := func(client kubernetes.Interface, node, value string) error {
		_, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"test":"`+value+`"}}}`), metav1.PatchOptions{})
		return err
	}
	// The API server compiles a new policy some moments after it was written.
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		return annotate(one, "node-11", "probe") != nil, nil
	})
	if err != nil {
		t.Fatalf("the policies were never heeded: %v", err)
	}

	t.Run("its own node", func(t *testing.T) {
		if err := annotate(one, "node-1", "mine"); err != nil {
			t.Error(err)
		}
	})
	t.Run("what decides which pods come to its node", func(t *testing.T) {
		for what, patch := range map[string]string{
			"a label": `{"metadata":{"labels":{"node-restriction.kubernetes.io/zone":"mine"}}}`,
			"a taint": `{"spec":{"taints":[{"key":"k","effect":"NoSchedule"}]}}`,
		} {
			for _, subresource := range [][]string{nil, {"status"}} {
				_, err := one.CoreV1().Nodes().Patch(ctx, "node-1", types.MergePatchType, []byte(patch), metav1.PatchOptions{}, subresource...)
				if what == "a taint" && len(subresource) > 0 {
					continue // the API drops a spec from a write of the status
				}
				if err == nil || !strings.Contains(err.Error(), "labels, owners or spec") {
					t.Errorf("%s by way of %v: %v", what, subresource, err)
				}
			}
		}
	})
	t.Run("another node", func(t *testing.T) {
		for _, node := range []string{"node-11", "1"} {
			if err := annotate(one, node, "not mine"); err == nil || !strings.Contains(err.Error(), "the Node object of its own node alone") {
				t.Errorf("%s: %v", node, err)
			}
		}
		if err := one.CoreV1().Nodes().Delete(ctx, "node-11", metav1.DeleteOptions{}); err == nil {
			t.Error("deleted another node")
		}
	})
	t.Run("a component of the servers may write all", func(t *testing.T) {
		if err := annotate(as(t, config, dns, "node-1"), "node-11", "by a server"); err != nil {
			t.Error(err)
		}
	})
	t.Run("endpoint slices", func(t *testing.T) { testSlices(ctx, t, config, admin) })
	t.Run("pods", func(t *testing.T) { testPods(ctx, t, one, admin) })
	t.Run("volumes, claims and capacities", func(t *testing.T) { testStorage(ctx, t, as(t, config, storage, "node-1"), admin) })
	t.Run("addresses end with the selection", func(t *testing.T) { testAddresses(ctx, t, admin, network, dns) })
	t.Run("rights end with the selection", func(t *testing.T) {
		if err := components.Authorize(ctx, admin, []sdk.Info{dns}); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.RbacV1().ClusterRoles().Get(ctx, "k3m:component:cni.net", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the role: %v", err)
		}
		if _, err := admin.RbacV1().ClusterRoleBindings().Get(ctx, "k3m:component:cni.net", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the binding: %v", err)
		}
		if _, err := admin.RbacV1().ClusterRoles().Get(ctx, "k3m:component:dns.server", metav1.GetOptions{}); err != nil {
			t.Errorf("the other role: %v", err)
		}
	})
}

func testSlices(ctx context.Context, t *testing.T, config *rest.Config, admin kubernetes.Interface) {
	slice := func(name string, nodes ...string) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, AddressType: discoveryv1.AddressTypeIPv4}
		for _, n := range nodes {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.42.0.1"}, NodeName: &n})
		}
		return s
	}
	slices := as(t, config, network, "node-1").DiscoveryV1().EndpointSlices("default")
	if _, err := slices.Create(ctx, slice("own", "node-1"), metav1.CreateOptions{}); err != nil {
		t.Errorf("own: %v", err)
	}
	if _, err := slices.Create(ctx, slice("empty"), metav1.CreateOptions{}); err != nil {
		t.Errorf("empty: %v", err)
	}
	for name, nodes := range map[string][]string{"other": {"node-11"}, "mixed": {"node-1", "node-11"}} {
		if _, err := slices.Create(ctx, slice(name, nodes...), metav1.CreateOptions{}); err == nil {
			t.Errorf("created %s", name)
		}
	}
	theirs, err := admin.DiscoveryV1().EndpointSlices("default").Create(ctx, slice("theirs", "node-11"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	own := "node-1"
	theirs.Endpoints[0].NodeName = &own
	if _, err := slices.Update(ctx, theirs, metav1.UpdateOptions{}); err == nil {
		t.Error("took over another node's slice")
	}
	if err := slices.Delete(ctx, "theirs", metav1.DeleteOptions{}); err == nil {
		t.Error("deleted another node's slice")
	}
	if err := slices.Delete(ctx, "own", metav1.DeleteOptions{}); err != nil {
		t.Errorf("delete own: %v", err)
	}
}

func testPods(ctx context.Context, t *testing.T, one, admin kubernetes.Interface) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := admin.CoreV1().ServiceAccounts("default").Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	for _, node := range []string{"node-1", "node-11"} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "on-" + node}, Spec: corev1.PodSpec{
			NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "example.org/c:1"}}}}
		if _, err := admin.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	patch := []byte(`{"metadata":{"annotations":{"test":"x"}}}`)
	if _, err := one.CoreV1().Pods("default").Patch(ctx, "on-node-1", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Errorf("own pod: %v", err)
	}
	if _, err := one.CoreV1().Pods("default").Patch(ctx, "on-node-11", types.MergePatchType, patch, metav1.PatchOptions{}); err == nil {
		t.Error("patched a pod of another node")
	}
}
