package agent

import (
	"context"
	"fmt"
	"time"

	utilversion "k8s.io/apimachinery/pkg/util/version"
	utilkernel "k8s.io/kubernetes/pkg/util/kernel"
	"sigs.k8s.io/knftables"
)

// Mode is the packet filter that a node's Services are made of.
type Mode string

// The modes, by their names in kube-proxy.
const (
	ModeNFTables Mode = "nftables"
	ModeIPTables Mode = "iptables"
)

// PacketFilter says which packet filter a node uses. kube-proxy and the network component use
// the same.
type PacketFilter struct {
	Mode Mode
	// Reason is half a sentence for the log.
	Reason string
}

// detectTimeout bounds the check transactions: nft takes milliseconds when it works.
const detectTimeout = 10 * time.Second

// DetectPacketFilter chooses nftables where the kernel (5.13, which kube-proxy asks for) and the
// nft command (1.0.1) allow, tried by a transaction that changes nothing, and iptables
// elsewhere. It looks at the network namespace of the process.
func DetectPacketFilter(ctx context.Context) PacketFilter {
	ctx, cancel := context.WithTimeout(ctx, detectTimeout)
	defer cancel()
	if err := checkNFTables(ctx); err != nil {
		return PacketFilter{ModeIPTables, "nftables can't be used: " + err.Error()}
	}
	return PacketFilter{ModeNFTables, "the kernel and nft have what kube-proxy needs"}
}

// checkNFTables does what kube-proxy's own check does (knftables.New runs nft for its version,
// and a check of the table), and a check of the kinds of objects that its rules are made of,
// because containers often have a kernel with half of them.
func checkNFTables(ctx context.Context) error {
	kernel, err := utilkernel.GetVersion()
	if err != nil {
		return fmt.Errorf("find the kernel's version: %w", err)
	}
	if kernel.LessThan(utilversion.MustParseGeneric(utilkernel.NFTablesKubeProxyKernelVersion)) {
		return fmt.Errorf("kernel %s is older than %s", kernel, utilkernel.NFTablesKubeProxyKernelVersion)
	}
	nft, err := knftables.New(knftables.IPv4Family, "k3m-check")
	if err != nil {
		return err
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Add(&knftables.Chain{
		Name: "nat", Type: knftables.PtrTo(knftables.NATType),
		Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority),
	})
	tx.Add(&knftables.Chain{Name: "service"})
	tx.Add(&knftables.Map{Name: "services", Type: "ipv4_addr . inet_proto . inet_service : verdict"})
	tx.Add(&knftables.Element{
		Map: "services", Key: []string{"192.0.2.1", "tcp", "80"}, Value: []string{"goto service"},
	})
	tx.Add(&knftables.Rule{Chain: "nat", Rule: "ip daddr . meta l4proto . th dport vmap @services"})
	tx.Add(&knftables.Rule{Chain: "nat", Rule: "ct state new masquerade fully-random"})
	if err := nft.Check(ctx, tx); err != nil {
		return fmt.Errorf("a check of kube-proxy's kinds of rules: %w", err)
	}
	return nil
}
