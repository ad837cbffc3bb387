package flannel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"sigs.k8s.io/knftables"

	"github.com/k3m-io/k3m/sdk"
)

// removeRules removes what flannel's traffic manager for a packet filter makes, and what
// the CNI executable portmap leaves of its own when the last pod with a host port is
// gone. It is no error if the filter's tool is missing: then nothing was made with it.
func removeRules(ctx context.Context, filter sdk.PacketFilter) error {
	if filter == sdk.NFTables {
		return errors.Join(removeTables(ctx, "flannel-ipv4", "flannel-ipv6"), removeUnusedPortMaps(ctx))
	}
	// Not flannel's own CleanUp: that leaves the jumps, which keep the chains alive.
	var errs []error
	for _, family := range []iptables.Protocol{iptables.ProtocolIPv4, iptables.ProtocolIPv6} {
		tool, err := iptables.New(iptables.IPFamily(family), iptables.Timeout(iptablesWait))
		if err != nil {
			continue
		}
		errs = append(errs, removeChains(tool, iptablesChains))
		// A host port in use, of whatever network, is a rule in this chain.
		if lines, err := tool.List("nat", "CNI-HOSTPORT-DNAT"); err == nil && len(lines) == 1 {
			errs = append(errs, removeChains(tool, []iptablesChain{
				{"nat", []string{"PREROUTING", "OUTPUT"}, "CNI-HOSTPORT-DNAT"},
				{"nat", []string{"POSTROUTING"}, "CNI-HOSTPORT-MASQ"},
				{"nat", nil, "CNI-HOSTPORT-SETMARK"},
			}))
		}
	}
	return errors.Join(errs...)
}

// removeChains removes chains and the jumps to them.
func removeChains(tool *iptables.IPTables, chains []iptablesChain) error {
	var errs []error
	for _, at := range chains {
		for _, hook := range at.hooks {
			lines, err := tool.List(at.table, hook)
			if err != nil {
				continue // no such table in this kernel
			}
			for i := len(lines) - 1; i > 0; i-- { // the first line is the chain's policy
				if strings.HasSuffix(lines[i], "-j "+at.chain) {
					errs = append(errs, tool.DeleteById(at.table, hook, i))
				}
			}
		}
		if exists, err := tool.ChainExists(at.table, at.chain); err != nil || !exists {
			continue
		}
		if err := tool.ClearAndDeleteChain(at.table, at.chain); err != nil {
			errs = append(errs, fmt.Errorf("remove iptables chain %s: %w", at.chain, err))
		}
	}
	return errors.Join(errs...)
}

// nftTables are the tables that this component may have to do with, and their families.
var nftTables = map[string]knftables.Family{
	"flannel-ipv4": knftables.IPv4Family,
	"flannel-ipv6": knftables.IPv6Family,
}

func removeTables(ctx context.Context, names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, removeTable(ctx, nftTables[name], name))
	}
	return errors.Join(errs...)
}

func removeTable(ctx context.Context, family knftables.Family, name string) error {
	nft, err := knftables.New(family, name)
	if err != nil {
		return nil // no nftables here: no table either
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{}) // so that there is one to delete
	tx.Delete(&knftables.Table{})
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", name, err)
	}
	return nil
}

// removeUnusedPortMaps removes portmap's tables if no pod, of whatever network, has a
// host port.
func removeUnusedPortMaps(ctx context.Context) error {
	const table = "cni_hostport"
	var errs []error
	for _, family := range []knftables.Family{knftables.IPv4Family, knftables.IPv6Family} {
		nft, err := knftables.New(family, table)
		if err != nil {
			continue
		}
		used := func(chain string) bool {
			rules, err := nft.ListRules(ctx, chain)
			return err == nil && len(rules) > 0
		}
		chains, err := nft.List(ctx, "chains")
		if err != nil || len(chains) == 0 || slices.ContainsFunc([]string{"hostports", "hostip_hostports"}, used) {
			continue
		}
		errs = append(errs, removeTable(ctx, family, table))
	}
	return errors.Join(errs...)
}
