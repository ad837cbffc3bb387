package flannel

import (
	"context"
	"fmt"

	"sigs.k8s.io/knftables"
)

// localnetTable is the nftables table that keeps others' packets off the host's loopback
// addresses.
const localnetTable = "k3m-flannel"

// localnetRules drop what comes for 127.0.0.0/8 from another interface than the loopback.
//
// For host ports on the host's own 127.0.0.1, portmap sets route_localnet on cni0, with
// which the kernel takes such packets from pods: they would reach every service that
// relies on listening there (CVE-2020-8558). In iptables mode the kubelet's chain
// KUBE-FIREWALL drops them, and kube-proxy's copy of it; in nftables mode neither is there.
//
// As in that chain, answers to the host's own connections to a host port pass (they are
// translated back to 127.0.0.1 before they get here), and so does what a rule of someone
// else translates to there on purpose. No source that is a loopback address passes.
var localnetRules = []string{
	`iifname != "lo" ip saddr 127.0.0.0/8 ip daddr 127.0.0.0/8 drop`,
	"ct state established,related return",
	"ct status dnat return",
	`iifname != "lo" ip daddr 127.0.0.0/8 drop`,
}

// closeLocalnet puts localnetRules in place, in one transaction. IPv6 has no such way in:
// the kernel never takes packets for ::1 from another interface.
func closeLocalnet(ctx context.Context) error {
	nft, err := knftables.New(nftTables[localnetTable], localnetTable)
	if err != nil {
		return fmt.Errorf("use nftables: %w", err)
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo(linkAlias)})
	chain := &knftables.Chain{
		Name: "input", Type: knftables.PtrTo(knftables.FilterType),
		Hook: knftables.PtrTo(knftables.InputHook), Priority: knftables.PtrTo(knftables.FilterPriority),
	}
	tx.Add(chain)
	tx.Flush(chain)
	for _, rule := range localnetRules {
		tx.Add(&knftables.Rule{Chain: chain.Name, Rule: rule})
	}
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("keep pods off the host's loopback addresses: %w", err)
	}
	return nil
}
