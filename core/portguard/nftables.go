package portguard

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"sigs.k8s.io/knftables"
)

func tableName(dataDir string) string { return "k3m-guard-" + suffix(dataDir) }

// writeNFTables makes the table anew, in one transaction. It is small, and counts nothing.
func (g *Guard) writeNFTables(ctx context.Context, ports []Port) error {
	if len(ports) == 0 {
		return removeNFTables(ctx, g.opts.DataDir)
	}
	nft, err := knftables.New(knftables.InetFamily, tableName(g.opts.DataDir))
	if err != nil {
		return fmt.Errorf("guard component ports: %w", err)
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("k3m keeps the ports of components closed to the outside")})
	tx.Add(&knftables.Chain{
		Name: "input", Type: knftables.PtrTo(knftables.FilterType),
		Hook: knftables.PtrTo(knftables.InputHook), Priority: knftables.PtrTo(knftables.FilterPriority),
	})
	tx.Add(&knftables.Chain{Name: "guarded"})
	for _, family := range []struct{ name, keyType, match string }{
		{"ports4", "ipv4_addr", "ip"}, {"ports6", "ipv6_addr", "ip6"},
	} {
		tx.Add(&knftables.Set{Name: family.name, Type: family.keyType + " . inet_proto . inet_service"})
		tx.Add(&knftables.Rule{Chain: "input", Rule: family.match + " daddr . meta l4proto . th dport @" + family.name + " jump guarded"})
	}
	for _, p := range ports {
		tx.Add(&knftables.Element{Set: setOf(p.Address), Key: []string{p.Address.String(), strings.ToLower(p.Protocol), strconv.Itoa(int(p.Port))}})
	}
	tx.Add(&knftables.Rule{Chain: "guarded", Rule: "iifname lo accept", Comment: knftables.PtrTo("the node itself")})
	for _, pods := range g.opts.Pods {
		// From where this node itself would send packets to that pod: a neighbour's word for
		// whose packet it is does not count.
		tx.Add(&knftables.Rule{
			Chain: "guarded", Rule: familyOf(pods.Addr()) + " saddr " + pods.String() + " fib saddr . iif oif != 0 accept",
			Comment: knftables.PtrTo("pods"),
		})
	}
	for _, services := range g.opts.Services {
		// Where a pod's packets come from is the cni's business: some have no route back by the
		// same interface. What is translated is a flow, and its answer goes to the pod.
		family := familyOf(services.Addr())
		toService := "ct status dnat ct original " + family + " daddr " + services.String()
		for _, pods := range g.opts.Pods {
			if familyOf(pods.Addr()) == family {
				tx.Add(&knftables.Rule{Chain: "guarded", Rule: toService + " " + family + " saddr " + pods.String() + " accept", Comment: knftables.PtrTo("pods, by way of a Service")})
			}
		}
		tx.Add(&knftables.Rule{Chain: "guarded", Rule: toService + " drop", Comment: knftables.PtrTo("cluster IPs are not for the outside")})
	}
	tx.Add(&knftables.Rule{Chain: "guarded", Rule: "ct status dnat accept", Comment: knftables.PtrTo("node ports and load balancers")})
	tx.Add(&knftables.Rule{Chain: "guarded", Rule: "drop"})
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("guard component ports: %w", err)
	}
	return nil
}

func removeNFTables(ctx context.Context, dataDir string) error {
	nft, err := knftables.New(knftables.InetFamily, tableName(dataDir))
	if err != nil {
		return nil //nolint:nilerr // without nftables there is no table
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{}) // so that it can be deleted
	tx.Delete(&knftables.Table{})
	return nft.Run(ctx, tx)
}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return "ip"
	}
	return "ip6"
}

func setOf(a netip.Addr) string {
	if a.Is4() {
		return "ports4"
	}
	return "ports6"
}
