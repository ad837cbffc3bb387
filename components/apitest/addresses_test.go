package apitest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/sdk"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
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
	allow := forbidStatus(ctx, t, admin)
	late := others[0]
	late.Name = "late"
	var left *components.LeftoverError
	if err := components.Authorize(ctx, admin, append(others, late)); !errors.As(err, &left) || !strings.Contains(err.Error(), "default/given") {
		t.Errorf("while an admission policy forbids it: %v", err)
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Get(ctx, "k3m:component:"+late.ID(), metav1.GetOptions{}); err != nil {
		t.Errorf("another component has no rights: %v", err)
	}
	allow()
	start := time.Now()
	if err := components.Authorize(ctx, admin, others); err != nil {
		t.Fatal(err)
	}
	t.Logf("Authorize took %v", time.Since(start).Round(time.Millisecond))
	if got := fmt.Sprint(has("given"), has("foreign")); got != "0 1" {
		t.Errorf("after it was deselected, the Services have %s addresses, want 0 and 1", got)
	}
}

// forbidStatus has an admission policy refuse writes of the Services' status until allow is called.
func forbidStatus(ctx context.Context, t *testing.T, admin kubernetes.Interface) (allow func()) {
	const name = "test-no-status"
	policies, bindings := admin.AdmissionregistrationV1().ValidatingAdmissionPolicies(), admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	_, err := policies.Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{Operations: []admissionv1.OperationType{admissionv1.Update},
					Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"services/status"}}},
			}}},
			Validations: []admissionv1.Validation{{Expression: "false", Message: "not now"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = bindings.Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// The API server heeds a policy some moments after it was written, or removed.
	heeded := func(forbidden bool) {
		t.Helper()
		err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
			_, err := admin.CoreV1().Services("default").Patch(ctx, "foreign", types.MergePatchType,
				[]byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}`), metav1.PatchOptions{FieldManager: "another-balancer"}, "status")
			return (err != nil) == forbidden, nil
		})
		if err != nil {
			t.Fatalf("the policy is not heeded: %v", err)
		}
	}
	heeded(true)
	return func() {
		t.Helper()
		if err := errors.Join(bindings.Delete(ctx, name, metav1.DeleteOptions{}), policies.Delete(ctx, name, metav1.DeleteOptions{})); err != nil {
			t.Fatal(err)
		}
		heeded(false)
	}
}
