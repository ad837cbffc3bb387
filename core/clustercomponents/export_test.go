package clustercomponents

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// WriteAs is what a Node does, once, as if its Node object had the UID.
func WriteAs(ctx context.Context, n *Node, status nodestatus.NodeStatus, uid types.UID) error {
	return n.write(ctx, status, uid)
}
