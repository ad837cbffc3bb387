package components

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
)

// withdrawAddresses clears the addresses that a component of kind servicelb, which is not
// selected any more and does not run, gave to Services: kube-proxy would go on serving
// them. They are known by the field manager with which such a component writes them, which
// by contract is its own name, "k3m:component:<id>": what another load balancer wrote stays.
func withdrawAddresses(ctx context.Context, client kubernetes.Interface, id string) error {
	services, err := client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer)).String()})
	if err != nil {
		return fmt.Errorf("withdraw the addresses that %s gave: %w", id, err)
	}
	var errs []error
	for _, s := range services.Items {
		err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
			if len(s.Status.LoadBalancer.Ingress) == 0 || !wroteAddresses(&s, componentPrefix+id) {
				return nil
			}
			patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"resourceVersion":%q},"status":{"loadBalancer":null}}`, s.UID, s.ResourceVersion)
			_, err := client.CoreV1().Services(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, patch,
				metav1.PatchOptions{FieldManager: fieldManager}, "status")
			if apierrors.IsConflict(err) {
				if now, getErr := client.CoreV1().Services(s.Namespace).Get(ctx, s.Name, metav1.GetOptions{}); getErr == nil {
					s = *now
				}
			}
			return err
		})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("withdraw the address that %s gave Service %s/%s: %w", id, s.Namespace, s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// wroteAddresses tells whether a manager is who wrote a Service's addresses.
func wroteAddresses(s *corev1.Service, manager string) bool {
	return slices.ContainsFunc(s.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == manager && m.Subresource == "status" && m.FieldsV1 != nil &&
			bytes.Contains(m.FieldsV1.GetRawBytes(), []byte(`"f:loadBalancer"`))
	})
}
