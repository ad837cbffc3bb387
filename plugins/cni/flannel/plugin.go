package flannel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/k3m-io/k3m/plugins/internal/klogs"
	"github.com/k3m-io/k3m/sdk"
)

// version is that of flannel's packages; a test holds it against go.mod.
const version = "0.28.10"

// New returns the component.
func New() sdk.Plugin { return &plugin{} }

type plugin struct{}

var (
	_ sdk.Plugin          = (*plugin)(nil)
	_ sdk.Cleaner         = (*plugin)(nil)
	_ sdk.ConfigValidator = (*plugin)(nil)
)

// Info implements sdk.Plugin.
//
// Root, since the directories of the CNI configuration and executables, the sysctls and
// the lock of iptables are root's; but of root's capabilities only what makes interfaces,
// routes and rules (NET_ADMIN) and what iptables-legacy opens its socket with (NET_RAW).
func (*plugin) Info() sdk.Info {
	return sdk.Info{
		Kind:     "cni",
		Name:     "flannel",
		Version:  version,
		Summary:  "pod network between the nodes, by flannel (vxlan, host-gw, wireguard)",
		Scope:    sdk.NodeScope,
		Requires: []sdk.Requirement{sdk.RequiresAPI, sdk.RequiresNode},
		Rules: []sdk.Rule{
			{Verbs: []string{"list", "watch"}, APIGroups: []string{""}, Resources: []string{"nodes"}},
			// The annotations of its own node, through which the others find it.
			{Verbs: []string{"patch"}, APIGroups: []string{""}, Resources: []string{"nodes/status"}},
		},
		Privileges:   sdk.Privileges{Root: true, Capabilities: []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}},
		Limits:       sdk.Limits{MemoryBytes: 512 << 20},
		ConfigSchema: json.RawMessage(configSchema),
	}
}

// Run implements sdk.Plugin. What it makes stays when it returns.
func (*plugin) Run(ctx context.Context, host *sdk.Host) error {
	if err := ensurePath(); err != nil {
		return err
	}
	p, err := planFor(host)
	if err != nil {
		return err
	}
	if err := klogs.Capture(host.Logger()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client, err := nodesClient(host.Kubeconfig(), func() {
		cancel(errors.New("the API refuses the component's credentials; the next start reads them anew"))
	})
	if err != nil {
		return err
	}
	err = (&network{plan: p, client: client, log: host.Logger(), report: host}).run(ctx)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// planFor checks the configuration and the facts.
func planFor(host *sdk.Host) (*plan, error) {
	cfg, problems := parseConfig(host.Config())
	if len(problems) > 0 {
		var texts []string
		for _, problem := range problems {
			texts = append(texts, strings.TrimPrefix(problem.Path+": "+problem.Message, ": "))
		}
		return nil, fmt.Errorf("configuration of cni.flannel: %s", strings.Join(texts, "; "))
	}
	return newPlan(cfg, host.Facts(), host.StateDir())
}

// ensurePath gives a process without a PATH the usual one: nft and iptables are found by
// it, by the libraries too.
func ensurePath() error {
	if os.Getenv("PATH") != "" {
		return nil
	}
	if err := os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return fmt.Errorf("set PATH: %w", err)
	}
	return nil
}
