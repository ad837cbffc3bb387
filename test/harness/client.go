package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// errEnded says that a node's process ended while it was waited for.
var errEnded = errors.New("k3m has ended")

// Config is the administrator's client configuration; its connections start in the host.
func (n *Node) Config() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", n.Host.Kubeconfig)
	if err != nil {
		return nil, err
	}
	cfg.Dial = n.Host.Dial
	cfg.QPS, cfg.Burst = 200, 400
	return cfg, nil
}

// Client is the administrator's client; its connections start in the host.
func (n *Node) Client() (*kubernetes.Clientset, error) {
	cfg, err := n.Config()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(cfg)
}

// WaitKubeconfig waits until the node has written the administrator's kubeconfig.
func (n *Node) WaitKubeconfig(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	if err := w.Add(filepath.Dir(n.Host.Kubeconfig)); err != nil {
		return err
	}
	for {
		if _, err := clientcmd.LoadFromFile(n.Host.Kubeconfig); err == nil {
			if st, err := os.Stat(n.Host.Kubeconfig); err == nil && st.Size() > 0 {
				return nil
			}
		}
		select {
		case <-w.Events:
		case <-n.Done():
			return fmt.Errorf("wait for the kubeconfig: %w: %s", errEnded, tail(n.Logs(), 5))
		case <-ctx.Done():
			return fmt.Errorf("wait for the kubeconfig: %w", context.Cause(ctx))
		}
	}
}

// WaitAPI waits until the API says that it is ready, and gives a client.
func (n *Node) WaitAPI(ctx context.Context) (*kubernetes.Clientset, error) {
	if err := n.WaitKubeconfig(ctx); err != nil {
		return nil, err
	}
	client, err := n.Client()
	if err != nil {
		return nil, err
	}
	// Nobody tells when a port begins to listen: ask until it does.
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := client.RESTClient().Get().AbsPath("/readyz").DoRaw(attempt)
		cancel()
		if err == nil {
			return client, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-n.Done():
			return nil, fmt.Errorf("wait for the API: %w: %s", errEnded, tail(n.Logs(), 5))
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the API: %w: the last answer was: %w", context.Cause(ctx), err)
		}
	}
}

// WaitReady waits until the node's Ready condition is true, and gives a client.
func (n *Node) WaitReady(ctx context.Context) (*kubernetes.Clientset, error) {
	client, err := n.WaitAPI(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := n.whileRunning(ctx)
	defer cancel()
	nodes := client.CoreV1().Nodes()
	err = Wait(ctx, nodes, n.Name, func(node *corev1.Node) (bool, string) {
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady {
				// After a restart the condition is that of the run before until the kubelet
				// has spoken again.
				fresh := c.LastHeartbeatTime.After(n.Started.Truncate(time.Second).Add(-time.Second))
				return c.Status == corev1.ConditionTrue && fresh, c.Message
			}
		}
		return false, "no Ready condition yet"
	})
	if err != nil {
		return nil, fmt.Errorf("wait for node %s to be Ready: %w", n.Name, err)
	}
	return client, nil
}

// whileRunning is a context that also ends with the node's process.
func (n *Node) whileRunning(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-n.Done():
			cancel(fmt.Errorf("%w: %s", errEnded, tail(n.Logs(), 5)))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}
