package ledger

import (
	"context"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// settings are the sysctls that a node changes: its agent, the kubelet, kube-proxy and cni.flannel.
var settings = []string{
	"net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "net/ipv6/conf/all/forwarding",
	"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables",
	"net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_tcp_timeout_established", "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
	"net/ipv4/conf/all/route_localnet",
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// lookLimit bounds how long a program may take to list what there is.
const lookLimit = 5 * time.Second

// Look lists what is on the machine. What can't be listed is missing.
func Look(ctx context.Context) *Machine {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	m := &Machine{Time: time.Now().UTC().Truncate(time.Second), Settings: map[string]string{}}
	if all, err := net.Interfaces(); err == nil {
		for _, i := range all {
			m.Interfaces = append(m.Interfaces, i.Name)
		}
	}
	if out, err := exec.CommandContext(ctx, "nft", "list", "tables").Output(); err == nil {
		m.Tables = parseTables(string(out))
	}
	for _, family := range families {
		if out, err := family.save(ctx); err == nil {
			for _, c := range parseSaved(out) {
				m.Chains = append(m.Chains, family.name+" "+c)
			}
		}
	}
	slices.Sort(m.Chains)
	for _, name := range settings {
		if text, err := os.ReadFile("/proc/sys/" + name); err == nil {
			m.Settings[strings.ReplaceAll(name, "/", ".")] = strings.TrimSpace(string(text))
		}
	}
	return m
}

// parseTables reads "table inet filter" and so on.
func parseTables(text string) []string {
	var tables []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "table" {
			tables = append(tables, fields[1]+" "+fields[2])
		}
	}
	return tables
}

// family is an address family of iptables and its programs.
type family struct {
	name, program string
	// legacy is the file that lists the tables in the kernel that are not nftables'. Asking for
	// those of a kernel that has none would have it load them.
	legacy string
}

var families = []family{
	{"ip", "iptables", "/proc/net/ip_tables_names"},
	{"ip6", "ip6tables", "/proc/net/ip6_tables_names"},
}

// save lists the rules. Where iptables works on nftables, its tables are looked at only if there
// are any; the older iptables' the same.
func (f family) save(ctx context.Context) (string, error) {
	names, err := os.ReadFile(f.legacy)
	used := err == nil && len(names) > 0
	if !used {
		out, err := exec.CommandContext(ctx, "nft", "list", "tables").Output()
		used = err == nil && slices.ContainsFunc(parseTables(string(out)), func(table string) bool {
			return slices.Contains([]string{f.name + " filter", f.name + " nat", f.name + " mangle", f.name + " raw"}, table)
		})
	}
	if !used {
		return "", nil
	}
	out, err := exec.CommandContext(ctx, f.program+"-save").Output()
	return string(out), err
}

// parseSaved reads the chains of iptables-save's output, "filter FORWARD".
func parseSaved(text string) []string {
	var chains []string
	table := ""
	for line := range strings.Lines(text) {
		switch name, found := strings.CutPrefix(strings.TrimSpace(line), "*"); {
		case found:
			table = name
		case strings.HasPrefix(line, ":"):
			chain, _, _ := strings.Cut(line[1:], " ")
			chains = append(chains, table+" "+chain)
		}
	}
	return chains
}
