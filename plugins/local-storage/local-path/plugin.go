package localpath

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/plugins/internal/klogs"
	"github.com/k3m-io/k3m/plugins/local-storage/local-path/pathpattern"
	"github.com/k3m-io/k3m/sdk"
)

// version is the component's own: it is no other project's program.
const version = "1.0.0"

// New returns the component.
func New() sdk.Plugin { return &plugin{confine: confine} }

type plugin struct {
	confine func() error         // takes rights away from the whole process; nil in tests
	running atomic.Pointer[work] // for WriteMetrics
}

var (
	_ sdk.Plugin          = (*plugin)(nil)
	_ sdk.ConfigValidator = (*plugin)(nil)
	_ sdk.MetricsWriter   = (*plugin)(nil)
	_ sdk.Cleaner         = (*plugin)(nil)
)

// Info implements sdk.Plugin.
//
// A user of its own, which owns the directories. In them are files of any user that a pod
// ran as: to remove these it needs DAC_OVERRIDE (write and list directories of others) and
// FOWNER (directories with the sticky bit). quotactl wants SYS_ADMIN; confine.go takes
// nearly all else of that away again.
func (*plugin) Info() sdk.Info {
	core := []string{""}
	return sdk.Info{
		Kind:     "local-storage",
		Name:     "local-path",
		Version:  version,
		Summary:  "volumes that are directories on the node, with their size enforced where the file system can",
		Scope:    sdk.NodeScope,
		Requires: []sdk.Requirement{sdk.RequiresAPI, sdk.RequiresNode},
		Rules: []sdk.Rule{
			{Verbs: []string{"get", "list", "watch", "create", "patch", "delete"}, APIGroups: core, Resources: []string{"persistentvolumes"}},
			// update: takes the choice of a node back when the volume does not fit there.
			{Verbs: []string{"get", "list", "watch", "update"}, APIGroups: core, Resources: []string{"persistentvolumeclaims"}},
			{Verbs: []string{"patch"}, APIGroups: core, Resources: []string{"persistentvolumeclaims/status"}},
			{Verbs: []string{"get"}, APIGroups: core, Resources: []string{"nodes"}},
			{Verbs: []string{"create", "patch"}, APIGroups: core, Resources: []string{"events"}},
			{Verbs: []string{"list", "watch"}, APIGroups: []string{"storage.k8s.io"}, Resources: []string{"storageclasses"}},
			{Verbs: []string{"list", "create", "update", "delete"}, APIGroups: []string{"storage.k8s.io"}, Resources: []string{"csistoragecapacities"}},
		},
		Privileges:   sdk.Privileges{Capabilities: []string{"CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SYS_ADMIN"}},
		Limits:       sdk.Limits{MemoryBytes: 256 << 20},
		ConfigSchema: json.RawMessage(configSchema),
		Objects:      objects(),
	}
}

// Run implements sdk.Plugin. Volumes stay as they are when it returns.
func (p *plugin) Run(ctx context.Context, host *sdk.Host) error {
	var cfg config
	if err := host.DecodeConfig(&cfg); err != nil {
		return err
	}
	for _, problem := range cfg.check() {
		return fmt.Errorf("configuration of local-storage.local-path: %s: %s", problem.Path, problem.Message)
	}
	pattern, err := pathpattern.Parse(cmp.Or(cfg.PathPattern, pathpattern.Default))
	if err != nil {
		return fmt.Errorf("pathPattern: %w", err)
	}
	if err := klogs.Capture(host.Logger()); err != nil {
		return err
	}
	if p.confine != nil {
		if err := p.confine(); err != nil {
			host.Logger().Warn("the component keeps all that CAP_SYS_ADMIN gives", "error", err)
		}
	}
	facts := host.Facts()
	w := &work{
		log: host.Logger(), node: facts.NodeName, pattern: pattern, quotas: kernelQuotas{},
		started: func(w *work) { p.running.Store(w) }, ready: host.Ready,
	}
	for _, path := range cfg.pathsOf(facts.NodeName, facts.LocalStoragePath) {
		b := &base{path: path}
		if err := b.prepare(); err != nil {
			return err
		}
		w.bases = append(w.bases, b)
	}
	if w.ledger, err = openLedger(host.StateDir()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if w.client, err = newClient(host.Kubeconfig(), func() {
		cancel(errors.New("the API refuses the component's credentials; the next start reads them anew"))
	}); err != nil {
		return err
	}
	if w.nodeObject, err = nodeObject(ctx, w.client, facts.NodeName); err != nil {
		return err
	}
	defer p.running.Store(nil)
	err = w.run(ctx)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// nodeObject reads the own Node. Its label kubernetes.io/hostname is what volumes are
// bound to a node by, and the fence around node components knows the node's name alone:
// both have to be the same, as they are unless someone relabels the Node.
func nodeObject(ctx context.Context, client kubernetes.Interface, name string) (*corev1.Node, error) {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read node %s: %w", name, err)
	}
	if host, ok := node.Labels[corev1.LabelHostname]; ok && host != name {
		return nil, fmt.Errorf("node %s has the label %s=%s: volumes can't be bound to it; give it back its name (kubectl label node %s --overwrite %s=%s)",
			name, corev1.LabelHostname, host, name, corev1.LabelHostname, name)
	}
	return node, nil
}
