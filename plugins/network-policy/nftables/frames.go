package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"sigs.k8s.io/knftables"
)

// chainFrames is the one chain of the table of the family bridge.
const chainFrames = "forward-frames"

// guard makes the table of the family bridge, unless it is there.
//
// The kernel shows the table of inet what one pod sends to another over the bridge, but only frames
// that hold IP and nothing around it. A pod with CAP_NET_RAW can put a VLAN's tag around
// (802.1Q with the number 0 is enough, which the other end takes off and ignores) or PPPoE, and
// whoever gets it sees the packet within. So between pods the bridge passes on nothing but bare
// IP and ARP.
func (p *programmer) guard(ctx context.Context) (operations int, err error) {
	if p.frames == nil || p.guarded {
		return 0, nil
	}
	tx := p.writeFrames(fmt.Sprintf("meta ibrname %q ", p.network.bridge))
	err = p.frames.Run(ctx, tx)
	if err != nil && p.network.onlyBridge() {
		// A kernel without NFT_BRIDGE_META can't tell bridges apart, and need not.
		tx = p.writeFrames("")
		err = p.frames.Run(ctx, tx)
	}
	if err != nil {
		return tx.NumOperations(), fmt.Errorf("policies do not hold between pods of this node that send frames with a VLAN's tag, "+
			"since there are no rules for the bridge (kernel options NF_TABLES_BRIDGE and NFT_BRIDGE_META): %w", err)
	}
	p.guarded = true
	return tx.NumOperations(), nil
}

// writeFrames replaces the table: its one rule is for what matches.
func (p *programmer) writeFrames(match string) *knftables.Transaction {
	tx := p.frames.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("k3m network-policy.nftables")})
	tx.Add(&knftables.Chain{
		Name: chainFrames, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.ForwardHook),
		// Before what shows packets to inet, which is at 0.
		Priority: knftables.PtrTo(knftables.BaseChainPriority("-300")), Policy: knftables.PtrTo(knftables.AcceptPolicy),
	})
	tx.Add(&knftables.Rule{Chain: chainFrames, Rule: match + "ether type != { ip, ip6, arp } drop"})
	return tx
}

// onlyBridge says whether the pods' bridge is the only one of the host.
func (n network) onlyBridge() bool {
	links, err := netlink.LinkList()
	return err == nil && !slices.ContainsFunc(links, func(l netlink.Link) bool {
		return l.Type() == "bridge" && l.Attrs().Name != n.bridge
	})
}

// removeTables removes all that is programmed.
func removeTables(ctx context.Context, nft, frames knftables.Interface) error {
	remove := func(table knftables.Interface) error {
		tx := table.NewTransaction()
		tx.Add(&knftables.Table{}) // so that it is there to be deleted
		tx.Delete(&knftables.Table{})
		return table.Run(ctx, tx)
	}
	err := remove(nft)
	// A kernel without rules for bridges has none to remove, and would not take these either.
	if _, missing := frames.List(ctx, "chains"); missing == nil {
		err = errors.Join(err, remove(frames))
	}
	if err != nil {
		return fmt.Errorf("remove the rules of the network policies: %w", err)
	}
	return nil
}
