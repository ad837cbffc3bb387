package apitest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/sdk"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

var balancer = sdk.Info{Kind: "servicelb", Name: "lb", Scope: sdk.ServerScope, Rules: []sdk.Rule{
	{Verbs: []string{"patch"}, APIGroups: []string{""}, Resources: []string{"services/status"}},
}}

// testAddresses: when a load balancer is not selected any more, the addresses that it gave
// go, and no others do.
func testAddresses(ctx context.Context, t *testing.T, admin kubernetes.Interface, others ...sdk.Info) {
	if err := components.Authorize(ctx, admin, append(others, balancer)); err != nil {
		t.Fatal(err)
	}
	services := admin.CoreV1().Services("default")
	managers := map[string]string{"given": "k3m:component:servicelb.lb", "foreign": "another-balancer"}
	for name, manager := range managers {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}}}
		if _, err := services.Create(ctx, s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		patch := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}`)
		if _, err := services.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager}, "status"); err != nil {
			t.Fatal(err)
		}
	}
	has := func(name string) int {
		s, err := services.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(s.Status.LoadBalancer.Ingress)
	}
	if err := components.Authorize(ctx, admin, append(others, balancer)); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(has("given"), has("foreign")); got != "1 1" {
		t.Errorf("while it is selected, the Services have %s addresses", got)
	}
	start := time.Now()
	if err := components.Authorize(ctx, admin, others); err != nil {
		t.Fatal(err)
	}
	t.Logf("Authorize took %v", time.Since(start).Round(time.Millisecond))
	if got := fmt.Sprint(has("given"), has("foreign")); got != "0 1" {
		t.Errorf("after it was deselected, the Services have %s addresses, want 0 and 1", got)
	}
}
