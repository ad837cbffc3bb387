package nftables

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"sigs.k8s.io/knftables"

	"github.com/k3m-io/k3m/plugins/internal/klogs"
	"github.com/k3m-io/k3m/sdk"
)

// New returns the component.
func New() sdk.Plugin { return &plugin{metrics: &metrics{}} }

type plugin struct{ metrics *metrics }

var (
	_ sdk.Plugin        = (*plugin)(nil)
	_ sdk.Cleaner       = (*plugin)(nil)
	_ sdk.MetricsWriter = (*plugin)(nil)
)

// Info implements sdk.Plugin.
//
// A user of its own, with the one capability that nftables asks for.
func (*plugin) Info() sdk.Info {
	read := []string{"list", "watch"}
	return sdk.Info{
		Kind:     "network-policy",
		Name:     "nftables",
		Version:  "1.0.0",
		Summary:  "NetworkPolicies, enforced by the kernel's nftables",
		Scope:    sdk.NodeScope,
		Requires: []sdk.Requirement{sdk.RequiresAPI, sdk.RequiresNode, "cni"},
		Rules: []sdk.Rule{
			{Verbs: read, APIGroups: []string{""}, Resources: []string{"pods", "namespaces", "nodes"}},
			{Verbs: read, APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}},
			{Verbs: read, APIGroups: []string{"k3m.io"}, Resources: []string{"nodecomponents", "components"}},
		},
		Privileges:   sdk.Privileges{Capabilities: []string{"CAP_NET_ADMIN"}},
		Limits:       sdk.Limits{MemoryBytes: 512 << 20},
		ConfigSchema: json.RawMessage(configSchema),
	}
}

// Run implements sdk.Plugin. The rules stay when it returns.
func (p *plugin) Run(ctx context.Context, host *sdk.Host) error {
	nft, frames, err := openTables()
	if err != nil {
		return err
	}
	cfg, err := readConfig(host)
	if err != nil {
		return err
	}
	facts := host.Facts()
	network, err := podNetwork(facts.ClusterCIDRs, facts.PodGateways)
	if err != nil {
		return err
	}
	if network.bridge == "" {
		frames = nil
	}
	if err := klogs.Capture(host.Logger()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	clients, err := newClients(host.Kubeconfig(), func() { cancel(errRefused) })
	if err != nil {
		return err
	}
	err = (&loop{
		clients: clients, node: facts.NodeName, records: cfg.AddressRecords,
		programmer: &programmer{nft: nft, frames: frames, network: network, fresh: true},
		engine:     newEngine(facts.NodeName, network.families, network.subnets...), changes: newChanges(),
		metrics: p.metrics, log: host.Logger(), report: host,
	}).run(ctx)
	if err == nil && errors.Is(context.Cause(ctx), errRefused) {
		return errRefused
	}
	return err
}

// Cleanup implements sdk.Cleaner: it removes the tables, after which no policy is enforced.
func (*plugin) Cleanup(ctx context.Context, _ *sdk.Host) error {
	if err := ensurePath(); err != nil {
		return err
	}
	if !hasTool() {
		return nil // Run could not have made anything
	}
	nft, frames, err := openTables()
	if err != nil {
		return err
	}
	return removeTables(ctx, nft, frames)
}

// WriteMetrics implements sdk.MetricsWriter.
func (p *plugin) WriteMetrics(_ context.Context, w io.Writer) error { return p.metrics.write(w) }

// openTables finds the tool, for the table of the family inet and that of bridge.
func openTables() (inet, frames knftables.Interface, err error) {
	if err := ensurePath(); err != nil {
		return nil, nil, err
	}
	if !hasTool() {
		return nil, nil, errors.New("network policies need the tool nft, which this host has not: install nftables, " +
			"or choose `--disable network-policy` and do without their enforcement")
	}
	if inet, err = knftables.New(knftables.InetFamily, tableName); err == nil {
		frames, err = knftables.New(knftables.BridgeFamily, tableName)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("use nftables: %w", err)
	}
	return inet, frames, nil
}

func hasTool() bool {
	_, err := exec.LookPath("nft")
	return err == nil
}

// ensurePath gives a process without a PATH the usual one: nft is found by it.
func ensurePath() error {
	if os.Getenv("PATH") != "" {
		return nil
	}
	if err := os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return fmt.Errorf("set PATH: %w", err)
	}
	return nil
}
