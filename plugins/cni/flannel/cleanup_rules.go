package flannel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"
	"sigs.k8s.io/knftables"

	"github.com/k3m-io/k3m/sdk"
)

// removeRules removes what filter makes with a packet filter. It is no
// error if the filter's tool is missing: then nothing was made with it.
//
// It also removes what the CNI executable portmap leaves, which nobody else does: the host
// ports of pods in the ranges of pods, and portmap's own chains once no host port is left
// in them, of whatever network.
func removeRules(ctx context.Context, filter sdk.PacketFilter, pods []netip.Prefix) error {
	if filter == sdk.NFTables {
		errs := []error{removePortMapTables(ctx, pods)}
		for name, family := range nftTables {
			errs = append(errs, removeTable(ctx, family, name))
		}
		return errors.Join(errs...)
	}
	// Not flannel's own CleanUp: that leaves the jumps, which keep the chains alive.
	var errs []error
	for _, family := range []iptables.Protocol{iptables.ProtocolIPv4, iptables.ProtocolIPv6} {
		tool, err := iptables.New(iptables.IPFamily(family), iptables.Timeout(iptablesWait))
		if err != nil {
			continue
		}
		errs = append(errs, removeChains(tool, iptablesChains), removePortMapChains(tool, pods))
	}
	return errors.Join(errs...)
}

// removePortMapChains removes portmap's chains: those of each of the pods, then its own.
func removePortMapChains(tool *iptables.IPTables, pods []netip.Prefix) error {
	all, err := tool.ListChains("nat")
	if err != nil {
		return nil //nolint:nilerr // no such table in this kernel
	}
	var ours []iptablesChain
	for _, chain := range all {
		if !strings.HasPrefix(chain, "CNI-DN-") {
			continue
		}
		lines, err := tool.List("nat", chain)
		if err != nil {
			return fmt.Errorf("list iptables chain %s: %w", chain, err)
		}
		if targets := portMapTargets(lines); len(targets) > 0 && within(targets, pods) {
			ours = append(ours, iptablesChain{"nat", []string{"CNI-HOSTPORT-DNAT"}, chain})
		}
	}
	if err := removeChains(tool, ours); err != nil {
		return err
	}
	if lines, err := tool.List("nat", "CNI-HOSTPORT-DNAT"); err != nil || len(lines) > 1 {
		return nil //nolint:nilerr // not there, or in use
	}
	return removeChains(tool, []iptablesChain{
		{"nat", []string{"PREROUTING", "OUTPUT"}, "CNI-HOSTPORT-DNAT"},
		{"nat", []string{"POSTROUTING"}, "CNI-HOSTPORT-MASQ"},
		{"nat", nil, "CNI-HOSTPORT-SETMARK"},
	})
}

// removePortMapTables removes portmap's tables, unless another network's pods are in them.
func removePortMapTables(ctx context.Context, pods []netip.Prefix) error {
	const table = "cni_hostport"
	var errs []error
	for _, family := range []knftables.Family{knftables.IPv4Family, knftables.IPv6Family} {
		out, err := exec.CommandContext(ctx, "nft", "list", "table", string(family), table).Output()
		if err == nil && within(portMapTargets(strings.Split(string(out), "\n")), pods) {
			errs = append(errs, removeTable(ctx, family, table))
		}
	}
	return errors.Join(errs...)
}

var portMapTarget = regexp.MustCompile(`(?:dnat to|--to-destination) (\S+)`)

// portMapTargets are the pods that rules of portmap lead to. One that can't be read is
// the invalid address, which is within no range.
func portMapTargets(rules []string) []netip.Addr {
	var targets []netip.Addr
	for _, rule := range rules {
		if match := portMapTarget.FindStringSubmatch(rule); match != nil {
			target, _ := netip.ParseAddrPort(match[1])
			targets = append(targets, target.Addr())
		}
	}
	return targets
}

// within says whether each address is in one of the ranges.
func within(addrs []netip.Addr, ranges []netip.Prefix) bool {
	return !slices.ContainsFunc(addrs, func(addr netip.Addr) bool {
		return !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(addr) })
	})
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
	localnetTable:  knftables.IPv4Family,
}

// removeTable removes a table, which may be missing.
func removeTable(ctx context.Context, family knftables.Family, name string) error {
	nft, err := knftables.New(family, name)
	if err != nil {
		return nil //nolint:nilerr // no nftables here: no table either
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{}) // so that there is one to delete
	tx.Delete(&knftables.Table{})
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", name, err)
	}
	return nil
}
