package flannel

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"
	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/flannel-io/flannel/pkg/trafficmngr"
	flanneliptables "github.com/flannel-io/flannel/pkg/trafficmngr/iptables"
	flannelnftables "github.com/flannel-io/flannel/pkg/trafficmngr/nftables"
	"github.com/hashicorp/go-hclog"

	"github.com/k3m-io/k3m/sdk"
)

const (
	// never is how often, in seconds, flannel's iptables manager may look after its
	// rules by itself: guard does it, for it must not flush what it finds good.
	never = 10 * 365 * 24 * 60 * 60
	// iptablesCheck is how often guard looks at iptables rules, which give no events;
	// kube-proxy looks as often at its own.
	iptablesCheck = 30 * time.Second
	// restoreAttempts is how often guard makes rules anew that vanish right away again.
	restoreAttempts = 5
	// iptablesWait is how many seconds iptables waits for its lock.
	iptablesWait = 5
)

// filter keeps flannel's masquerade and forward rules in the kernel, through flannel's
// own traffic managers: what leaves the cluster is masqueraded, what stays is not, and
// what comes from or goes to pods is accepted. With nftables it keeps pods off the host's
// loopback addresses too (localnet.go).
//
//	prepare (before the pod CIDRs are known) ── apply ── guard
type filter struct {
	plan    *plan
	manager trafficmngr.TrafficManager
	log     hclog.Logger
}

func newFilter(p *plan, log hclog.Logger) *filter {
	f := &filter{plan: p, log: log, manager: &flannelnftables.NFTablesManager{}}
	if p.packetFilter == sdk.IPTables {
		f.manager = &flanneliptables.IPTablesManager{}
	}
	return f
}

// prepare does what needs no subnets yet.
func (f *filter) prepare(ctx context.Context) error {
	if err := f.manager.Init(ctx); err != nil {
		return fmt.Errorf("use %s: %w", f.plan.packetFilter, err)
	}
	if f.plan.packetFilter == sdk.NFTables {
		// One transaction that replaces the chain's rules: on a restart no packet
		// passes without them.
		f.manager.SetupAndEnsureForwardRules(ctx, ip4Net(f.plan.cluster4), ip6Net(f.plan.cluster6), never)
		if f.plan.ipv4() {
			return closeLocalnet(ctx)
		}
	}
	return nil
}

// apply puts the rules for s in place and returns what the state has to remember of
// them. before is the state of the run before this one.
//
// flannel's nftables manager replaces its rules in one transaction. Its iptables manager
// empties the chains first and fills them some time later, and packets would get lost in
// between: so rules that are as the run before left them are left alone.
func (f *filter) apply(ctx context.Context, s subnets, before state) ([]string, error) {
	if f.plan.packetFilter == sdk.NFTables {
		return nil, f.masquerade(ctx, s)
	}
	if len(before.Rules) > 0 && stateOf(f.plan, s).sameRules(before) {
		if rules, err := f.rules(ctx); err == nil && slices.Equal(rules, before.Rules) {
			f.log.Debug("the iptables rules are in place already")
			return rules, nil
		}
	}
	f.manager.SetupAndEnsureForwardRules(ctx, ip4Net(f.plan.cluster4), ip6Net(f.plan.cluster6), never)
	if err := f.masquerade(ctx, s); err != nil {
		return nil, err
	}
	// flannel's manager only logs its errors.
	rules, err := f.rules(ctx)
	if err != nil {
		return nil, err
	}
	if missing := f.missing(rules); missing != "" {
		return nil, fmt.Errorf("flannel's iptables rules did not get into place (none with %q); the log says more", missing)
	}
	return rules, nil
}

func (f *filter) masquerade(ctx context.Context, s subnets) error {
	own := f.plan.ownLease(s, &lease.LeaseAttrs{})
	net4, net6 := ip4Net(f.plan.cluster4), ip6Net(f.plan.cluster6)
	// "Before" is the same as "now": the manager needs not look for rules of another
	// subnet, for all are in its own chain, which it empties.
	err := f.manager.SetupAndEnsureMasqRules(ctx, net4, own.Subnet, net4, net6, own.IPv6Subnet, net6, own, never, false)
	if err != nil {
		return fmt.Errorf("set up masquerading: %w", err)
	}
	return nil
}

// guard makes the rules anew when someone removes or changes them (a restart of
// nftables.service empties the whole ruleset), until ctx ends.
func (f *filter) guard(ctx context.Context, s subnets) error {
	changes, stop, err := f.changes(ctx)
	if err != nil {
		return err
	}
	defer stop()
	good, err := f.restore(ctx, s, nil)
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
			good, err = f.restore(ctx, s, good)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("look after the %s rules: %w", f.plan.packetFilter, err)
}

// restore returns the rules as they are listed, after it made them anew if they are
// not good any more. Without good, any that have all that it takes are.
func (f *filter) restore(ctx context.Context, s subnets, good []string) ([]string, error) {
	rules, err := f.rules(ctx)
	if err != nil || slices.Equal(rules, good) || good == nil && f.missing(rules) == "" {
		return rules, err
	}
	// Who empties the ruleset may do it again right away (stop and start of a service).
	for range restoreAttempts {
		f.log.Warn("someone changed the pod network's rules; making them anew", "packetFilter", f.plan.packetFilter)
		if err = f.prepare(ctx); err == nil {
			_, err = f.apply(ctx, s, state{})
		}
		if err != nil {
			continue
		}
		if rules, err = f.rules(ctx); err == nil {
			missing := f.missing(rules)
			if missing == "" {
				return rules, nil
			}
			err = fmt.Errorf("there is none with %q although they were made %d times", missing, restoreAttempts)
		}
	}
	return nil, err
}

// missing returns what rules lack: a piece of which there must be so many.
func (f *filter) missing(rules []string) string {
	families := len(f.plan.iptablesFamilies())
	pieces := map[string]int{" accept": families, " masquerade": families}
	if f.plan.packetFilter == sdk.IPTables {
		pieces = map[string]int{
			"-A FLANNEL-POSTRTG ": families, "-A POSTROUTING ": families,
			"-A FLANNEL-FWD ": families, "-A FORWARD ": families,
		}
	} else if f.plan.ipv4() {
		pieces[" drop"] = 2 // localnetRules; flannel's own drop nothing
	}
	for piece, want := range pieces {
		have := 0
		for _, rule := range rules {
			// A chain's own line ends in its policy, "policy accept;".
			if strings.Contains(rule, piece) && !strings.HasSuffix(rule, ";") {
				have++
			}
		}
		if have < want {
			return strings.TrimSpace(piece)
		}
	}
	return ""
}

// changes returns a channel that tells when the rules may have changed, and what ends it.
func (f *filter) changes(ctx context.Context) (<-chan struct{}, func(), error) {
	if f.plan.packetFilter == sdk.NFTables {
		return watchTables(ctx, nftTables)
	}
	ticker := time.NewTicker(iptablesCheck)
	changes := make(chan struct{}, 1)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				select {
				case changes <- struct{}{}:
				default: // guard has not looked yet
				}
			}
		}
	}()
	return changes, func() { ticker.Stop(); cancel(); <-done }, nil
}

// rules lists flannel's rules as the kernel has them, without counters.
func (f *filter) rules(ctx context.Context) ([]string, error) {
	if f.plan.packetFilter == sdk.NFTables {
		return nftRules(ctx, f.plan)
	}
	var rules []string
	for _, family := range f.plan.iptablesFamilies() {
		found, err := iptablesRules(family)
		if err != nil {
			return nil, err
		}
		rules = append(rules, found...)
	}
	return rules, nil
}

// nftRules lists the tables of the plan's families. A missing table has no rules.
func nftRules(ctx context.Context, p *plan) ([]string, error) {
	var tables []string
	if p.ipv4() {
		tables = append(tables, "flannel-ipv4", localnetTable)
	}
	if p.ipv6() {
		tables = append(tables, "flannel-ipv6")
	}
	var rules []string
	for _, table := range tables {
		out, err := exec.CommandContext(ctx, "nft", "--stateless", "list", "table", string(nftTables[table]), table).Output()
		var failed *exec.ExitError
		switch {
		case errors.As(err, &failed) && strings.Contains(string(failed.Stderr), "No such file or directory"):
		case errors.As(err, &failed):
			return nil, fmt.Errorf("list table %s: %w: %s", table, err, strings.TrimSpace(string(failed.Stderr)))
		case err != nil:
			return nil, fmt.Errorf("list table %s: %w", table, err)
		}
		rules = append(rules, strings.Split(string(out), "\n")...)
	}
	return rules, nil
}

func (p *plan) iptablesFamilies() []iptables.Protocol {
	var families []iptables.Protocol
	if p.ipv4() {
		families = append(families, iptables.ProtocolIPv4)
	}
	if p.ipv6() {
		families = append(families, iptables.ProtocolIPv6)
	}
	return families
}

// iptablesChains are where flannel's iptables manager has its rules: chains of its own,
// and a jump to each.
var iptablesChains = []iptablesChain{
	{"nat", []string{"POSTROUTING"}, "FLANNEL-POSTRTG"},
	{"filter", []string{"FORWARD"}, "FLANNEL-FWD"},
}

// iptablesChain is a chain and the built-in ones that jump to it.
type iptablesChain struct {
	table string
	hooks []string
	chain string
}

// iptablesRules lists flannel's rules of one family. Missing chains have no rules.
func iptablesRules(family iptables.Protocol) ([]string, error) {
	tool, err := iptables.New(iptables.IPFamily(family), iptables.Timeout(iptablesWait))
	if err != nil {
		return nil, fmt.Errorf("use iptables: %w", err)
	}
	var rules []string
	for _, at := range iptablesChains {
		for _, chain := range append(slices.Clone(at.hooks), at.chain) {
			lines, err := tool.List(at.table, chain)
			var failed *iptables.Error
			if errors.As(err, &failed) && failed.IsNotExist() {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("list iptables chain %s: %w", chain, err)
			}
			for _, line := range lines {
				if strings.Contains(line, at.chain) {
					rules = append(rules, line)
				}
			}
		}
	}
	return rules, nil
}
