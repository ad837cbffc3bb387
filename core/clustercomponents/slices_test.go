package clustercomponents_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

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
		// A younger node with another's range.
		three.says(answers("Ready", "10.42.3.1"))
		wantServed(t, "test-dns", "10.42.2.1@node-2->node-2", "10.42.3.1@node-0->node-0", "192.0.2.1@node-1->node-1")
		four := addNode(t, "node-00", "10.42.3.0/24")
		four.live()
		four.says(answers("Ready", "10.42.3.9"))
		wantComponent(t, "dns.test", wantState("Ready", "4/4"))
		wantServed(t, "test-dns", "10.42.2.1@node-2->node-2", "10.42.3.1@node-0->node-0", "192.0.2.1@node-1->node-1")
		three.says(answers("Waiting"))
		four.says(answers("Waiting"))
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

// The range of a node's pods is the controller-manager's to choose, and where two have the same,
// the older one has the addresses.
func TestPodRanges(t *testing.T) {
	keep(t, dns())
	asNode := func(name string) kubernetes.Interface {
		config := rest.CopyConfig(admin)
		config.Impersonate = rest.ImpersonationConfig{UserName: "system:node:" + name, Groups: []string{"system:nodes", "system:authenticated"}}
		return kubernetes.NewForConfigOrDie(config)
	}
	node := func(name string, ranges ...string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: ranges}}
		if len(ranges) > 0 {
			n.Spec.PodCIDR = ranges[0]
		}
		return n
	}
	t.Cleanup(func() {
		_ = client.CoreV1().Nodes().Delete(context.Background(), "range-plain", metav1.DeleteOptions{})
	})
	eventually(t, "a node that brings its range is refused", func(ctx context.Context) error { // a new policy takes a moment
		_, err := asNode("range-forged").CoreV1().Nodes().Create(ctx, node("range-forged", "10.42.41.0/24"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), "may not choose the range") {
			return fmt.Errorf("it got %w", errors.Join(err, errors.New("no refusal of its range")))
		}
		return nil
	})
	plain := asNode("range-plain").CoreV1().Nodes()
	if _, err := plain.Create(t.Context(), node("range-plain"), metav1.CreateOptions{}); err != nil {
		t.Fatalf("a node without a range: %v", err)
	}
	if _, err := plain.Patch(t.Context(), "range-plain", types.MergePatchType, []byte(`{"metadata":{"annotations":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("a node changes its own object: %v", err)
	}
	// It may not be first to fill the range in, either, before the controller-manager does.
	for n := range 50 {
		name := fmt.Sprint("range-fast-", n)
		own := asNode(name).CoreV1().Nodes()
		if _, err := own.Create(t.Context(), node(name), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err := own.Patch(t.Context(), name, types.MergePatchType, []byte(`{"spec":{"podCIDR":"10.42.99.0/24","podCIDRs":["10.42.99.0/24"]}}`), metav1.PatchOptions{})
		if err := client.CoreV1().Nodes().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		switch {
		case err == nil:
			t.Fatal("a node filled its range in")
		case strings.Contains(err.Error(), "may not choose the range"):
			return
		}
	}
	t.Skip("the controller-manager was faster each time")
}
