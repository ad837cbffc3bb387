package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	cloudproviderapi "k8s.io/cloud-provider/api"
)

// NodeAddresses sets the addresses of a node that has external ones, and takes the taint away
// with which its kubelet registered. Kubernetes leaves both to the cluster's side, a cloud's
// controller: no kubelet can name external addresses. client may change nodes.
func NodeAddresses(ctx context.Context, client kubernetes.Interface, node string, internal, external []netip.Addr) error {
	var addresses []corev1.NodeAddress
	for _, ip := range internal {
		addresses = append(addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	for _, ip := range external {
		addresses = append(addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: ip.String()})
	}
	addresses = append(addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: node})
	// The list as a whole, in this order: a merge by type would mix up two of one type.
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": addresses}})
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("set the addresses of node %s: %w", node, err)
	}
	return untaint(ctx, client, node)
}

// untaint takes the taint away that keeps pods from a node which has no addresses yet.
func untaint(ctx context.Context, client kubernetes.Interface, name string) error {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var kept []corev1.Taint
		for _, t := range node.Spec.Taints {
			if t.Key != cloudproviderapi.TaintExternalCloudProvider {
				kept = append(kept, t)
			}
		}
		if len(kept) == len(node.Spec.Taints) {
			return nil
		}
		node.Spec.Taints = kept
		_, err = client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("take the taint of a node without addresses from %s: %w", name, err)
	}
	return nil
}
