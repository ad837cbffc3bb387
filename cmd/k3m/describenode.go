package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/core/agent"
	"github.com/k3m-io/k3m/core/config"
)

// roleLabel is what `kubectl get nodes` shows as a role; a kubelet may not give itself one.
const roleLabel = "node-role.kubernetes.io/control-plane"

// describeNode says of the server's node, once it has registered, what its kubelet can't: its
// role, labels that came later than the node, and external addresses.
func describeNode(ctx context.Context, client kubernetes.Interface, cfg *config.Config) error {
	labels := map[string]string{roleLabel: "true"}
	maps.Copy(labels, cfg.NodeLabels)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().Nodes().Patch(ctx, cfg.NodeName, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("label node %s: %w", cfg.NodeName, err)
	}
	if len(cfg.NodeExternalIPs) == 0 {
		return nil
	}
	return agent.NodeAddresses(ctx, client, cfg.NodeName, cfg.NodeIPs, cfg.NodeExternalIPs)
}
