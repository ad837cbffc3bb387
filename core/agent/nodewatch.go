package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/core/health"
)

// watchNode closes the registered and ready channels as our Node object gets there, with the
// kubelet's own rights. It watches until both have come, and then no longer.
func (a *Agent) watchNode(ctx context.Context) error {
	start := time.Now()
	if err := wait(ctx, a.joined); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", a.identity().files.kubeletKubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubelet's kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, a.opts.NodeName).String()
		}))
	var once struct{ registered, ready sync.Once }
	seen := func(obj any) {
		node, ok := obj.(*corev1.Node)
		if !ok || !hasAddress(node) {
			return
		}
		once.registered.Do(func() { close(a.registered) })
		if readySince(node, start) {
			once.ready.Do(func() {
				a.opts.Health.Set(health.Condition{Part: PartKubelet, State: health.OK})
				close(a.ready)
			})
		}
	}
	_, err = factory.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    seen,
		UpdateFunc: func(_, obj any) { seen(obj) },
	})
	if err != nil {
		return fmt.Errorf("start the watch: %w", err)
	}
	watchCtx, stop := context.WithCancel(ctx)
	factory.Start(watchCtx.Done())
	defer factory.Shutdown()
	defer stop()
	return wait(ctx, a.ready)
}

// hasAddress: the API server and kube-proxy can do nothing with a node that has none.
func hasAddress(node *corev1.Node) bool {
	for _, addr := range node.Status.Addresses {
		if addr.Type == corev1.NodeInternalIP {
			return true
		}
	}
	return false
}

// readySince says whether a kubelet reported the node as Ready at or after start; times in the
// API are whole seconds.
func readySince(node *corev1.Node, start time.Time) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue && !c.LastHeartbeatTime.Time.Before(start.Truncate(time.Second))
		}
	}
	return false
}
