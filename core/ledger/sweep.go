package ledger

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What bears the marks of k3m, of any release, is known by these.
const (
	// aliasMark begins the aliases of interfaces that components make.
	aliasMark = "k3m "
	// guardTable begins the names of each node's own table. Another node of the machine has one
	// as well: it is not marked by its name alone.
	guardTable = "k3m-guard-"
	guardChain = "K3M-GUARD-"
)

var (
	// links have no alias when their maker was killed before it could give them one.
	links = []string{"cni0", "flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6"}
	// tables are those of kube-proxy, flannel, the network policies, and portmap.
	tables = []string{"kube-proxy", "flannel-ipv4", "flannel-ipv6", "k3m-flannel", "k3m-network-policy", "cni_hostport"}
	// chains begin like those of kube-proxy, the kubelet, flannel and portmap.
	chains = []string{"KUBE-", "FLANNEL-", "CNI-HOSTPORT-", "CNI-DN-", "CNI-SN-", "K3M-"}
)

// Sweep removes interfaces and packet filter rules that bear k3m's marks, and that were not there
// before the first start. Without a ledger, only what an alias marks or what nobody else calls so
// is removed. It is for the end of a removal, when the components have removed what they know of.
// It says what it removed, and goes on after a failure.
func (l *Ledger) Sweep(ctx context.Context) (removed []string, err error) {
	var errs []error
	gone, err := l.sweepLinks()
	removed, errs = append(removed, gone...), append(errs, err)
	gone, err = l.sweepTables(ctx)
	removed, errs = append(removed, gone...), append(errs, err)
	gone, err = l.sweepChains(ctx)
	removed, errs = append(removed, gone...), append(errs, err, l.sweepEmpty(ctx))
	return removed, errors.Join(errs...)
}

func (l *Ledger) sweepLinks() (removed []string, err error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, link := range all {
		a := link.Attrs()
		marked := strings.HasPrefix(a.Alias, aliasMark)
		named := l.Before != nil && slices.Contains(links, a.Name) && !slices.Contains(l.Before.Interfaces, a.Name)
		if !marked && !named {
			continue
		}
		var missing netlink.LinkNotFoundError
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) && !errors.As(err, &missing) {
			errs = append(errs, fmt.Errorf("remove interface %s: %w", a.Name, err))
			continue
		}
		removed = append(removed, "interface "+a.Name)
	}
	return removed, errors.Join(errs...)
}

func (l *Ledger) sweepTables(ctx context.Context) (removed []string, err error) {
	out, err := exec.CommandContext(ctx, "nft", "list", "tables").Output()
	if err != nil {
		return nil, nil //nolint:nilerr // no nftables here: no table either
	}
	var errs []error
	for _, table := range parseTables(string(out)) {
		_, name, _ := strings.Cut(table, " ")
		ours := strings.HasPrefix(name, "k3m-") && !strings.HasPrefix(name, guardTable)
		known := l.Before != nil && slices.Contains(tables, name) && !slices.Contains(l.Before.Tables, table)
		if !ours && !known {
			continue
		}
		if out, err := exec.CommandContext(ctx, "nft", append([]string{"delete", "table"}, strings.Fields(table)...)...).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove nftables table %s: %w: %s", table, err, strings.TrimSpace(string(out))))
			continue
		}
		removed = append(removed, "nftables table "+table)
	}
	return removed, errors.Join(errs...)
}

func (l *Ledger) sweepChains(ctx context.Context) (removed []string, err error) {
	if l.Before == nil {
		return nil, nil // another Kubernetes calls its chains the same
	}
	var errs []error
	for _, f := range families {
		saved, err := f.save(ctx)
		if err != nil {
			continue // no iptables here
		}
		script, gone := removal(saved, func(chain string) bool { return !slices.Contains(l.Before.Chains, f.name+" "+chain) })
		if script == "" {
			continue
		}
		restore := exec.CommandContext(ctx, f.program+"-restore", "--noflush", "--wait")
		restore.Stdin = strings.NewReader(script)
		if out, err := restore.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove %s chains: %w: %s", f.program, err, strings.TrimSpace(string(out))))
			continue
		}
		removed = append(removed, gone...)
	}
	return removed, errors.Join(errs...)
}

// emptied are the tables that iptables makes in nftables and never removes.
var emptied = []string{"filter", "nat", "mangle", "raw", "security"}

// sweepEmpty removes those that are new and do nothing.
func (l *Ledger) sweepEmpty(ctx context.Context) error {
	if l.Before == nil {
		return nil
	}
	out, err := exec.CommandContext(ctx, "nft", "list", "tables").Output()
	if err != nil {
		return nil //nolint:nilerr // no nftables here
	}
	var errs []error
	for _, table := range parseTables(string(out)) {
		family, name, _ := strings.Cut(table, " ")
		if (family != "ip" && family != "ip6") || !slices.Contains(emptied, name) || slices.Contains(l.Before.Tables, table) {
			continue
		}
		text, err := exec.CommandContext(ctx, "nft", "list", "table", family, name).Output()
		if err != nil || !doesNothing(string(text)) {
			continue
		}
		if out, err := exec.CommandContext(ctx, "nft", "delete", "table", family, name).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove the empty nftables table %s: %w: %s", table, err, strings.TrimSpace(string(out))))
		}
	}
	return errors.Join(errs...)
}

// doesNothing tells whether a table holds no more than base chains that accept everything.
func doesNothing(table string) bool {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0, strings.HasPrefix(fields[0], "#"), fields[0] == "}", fields[0] == "table", fields[0] == "chain":
		case fields[0] == "type" && strings.HasSuffix(strings.TrimSpace(line), "policy accept;"):
		default:
			return false
		}
	}
	return true
}

// removal makes of iptables-save's output what takes away the chains with k3m's marks that are new
// and the rules that lead to them, for iptables-restore --noflush: all or nothing of each table.
func removal(saved string, isNew func(chain string) bool) (script string, removed []string) {
	var b strings.Builder
	var jumps, flush, drop []string
	marked := map[string]bool{}
	table := ""
	end := func() {
		if len(flush) > 0 {
			b.WriteString("*" + table + "\n" + strings.Join(slices.Concat(jumps, flush, drop), "\n") + "\nCOMMIT\n")
		}
		jumps, flush, drop = nil, nil, nil
		clear(marked)
	}
	for line := range strings.Lines(saved) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case line == "COMMIT":
			end()
		case strings.HasPrefix(line, ":"):
			chain, _, _ := strings.Cut(line[1:], " ")
			ours := slices.ContainsFunc(chains, func(prefix string) bool { return strings.HasPrefix(chain, prefix) })
			if ours && !strings.HasPrefix(chain, guardChain) && isNew(table+" "+chain) {
				marked[chain] = true
				flush, drop = append(flush, "-F "+chain), append(drop, "-X "+chain)
				removed = append(removed, "iptables chain "+table+" "+chain)
			}
		case strings.HasPrefix(line, "-A "):
			fields := strings.Fields(line)
			if i := slices.IndexFunc(fields, func(w string) bool { return w == "-j" || w == "-g" }); !marked[fields[1]] && i >= 0 && i+1 < len(fields) && marked[fields[i+1]] {
				jumps = append(jumps, "-D "+strings.TrimPrefix(line, "-A "))
			}
		}
	}
	return b.String(), removed
}

// Changed are the settings of the kernel that are other ones than before the first start, as
// "name=value" with the earlier value. A removal leaves them: who came later, such as another
// container engine, may stand on them.
func (l *Ledger) Changed(now *Machine) []string {
	if l.Before == nil {
		return nil
	}
	var changed []string
	for name, value := range now.Settings {
		if before, known := l.Before.Settings[name]; known && before != value {
			changed = append(changed, name+"="+strings.Join(strings.Fields(before), " "))
		}
	}
	slices.Sort(changed)
	return changed
}
