package controlplane

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	schedulingv1 "k8s.io/kubernetes/pkg/apis/scheduling/v1"
)

// bootstrapPriorityClasses is a post-start hook: it makes the two priority classes that
// Kubernetes reserves for its own pods. Upstream's waits for a second before it does.
func bootstrapPriorityClasses(hook genericapiserver.PostStartHookContext) error {
	client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("create priority classes: %w", err)
	}
	classes := client.SchedulingV1().PriorityClasses()
	return retryHook(hook, "create priority classes", func(ctx context.Context) error {
		for _, class := range schedulingv1.SystemPriorityClasses() {
			_, err := classes.Get(ctx, class.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				_, err = classes.Create(ctx, class, metav1.CreateOptions{})
			}
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
		}
		return nil
	})
}
