package portguard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/kubernetes/pkg/util/iptables"
)

func chainName(dataDir string) iptables.Chain {
	return iptables.Chain("K3M-GUARD-" + strings.ToUpper(suffix(dataDir)))
}

// writeIPTables fills the node's chain in one transaction a family, and has all input pass
// through it first. The command has no context; it waits for its lock for some seconds at most.
func (g *Guard) writeIPTables(_ context.Context, ports []Port) error {
	if len(ports) == 0 {
		return removeIPTables(g.opts.DataDir)
	}
	var errs []error
	present := map[bool]bool{}
	for _, ipt := range iptables.NewBestEffort() {
		present[ipt.IsIPv6()] = true
		errs = append(errs, g.writeFamily(ipt, ports))
	}
	for _, p := range ports {
		if !present[p.Address.Is6()] {
			errs = append(errs, fmt.Errorf("the host has no iptables for %s: install it", p.Address))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("guard component ports: %w", err)
	}
	return nil
}

func (g *Guard) writeFamily(ipt iptables.Interface, ports []Port) error {
	chain := chainName(g.opts.DataDir)
	var rules bytes.Buffer
	fmt.Fprintf(&rules, "*filter\n:%s - [0:0]\n", chain) // empties it
	rule := func(format string, args ...any) {
		fmt.Fprintf(&rules, "-A %s %s\n", chain, fmt.Sprintf(format, args...))
	}
	rule("-i lo -j RETURN")
	for _, pods := range g.opts.Pods {
		if pods.Addr().Is6() == ipt.IsIPv6() {
			rule("-s %s -j RETURN", pods)
		}
	}
	// Pods have passed; a cluster IP is not for the outside, and what else kube-proxy has
	// translated was sent to a node port or a load balancer's address.
	translated := "-m conntrack --ctstate DNAT"
	for _, services := range g.opts.Services {
		if services.Addr().Is6() == ipt.IsIPv6() {
			translated += fmt.Sprintf(" ! --ctorigdst %s", services)
		}
	}
	rule("%s -j RETURN", translated)
	guarded := 0
	for _, p := range ports {
		if p.Address.Is6() == ipt.IsIPv6() {
			protocol := strings.ToLower(p.Protocol)
			rule("-d %s -p %s -m %s --dport %d -j DROP", p.Address, protocol, protocol, p.Port)
			guarded++
		}
	}
	if guarded == 0 {
		return removeFamily(ipt, chain)
	}
	rules.WriteString("COMMIT\n")
	if err := ipt.Restore(iptables.TableFilter, rules.Bytes(), iptables.NoFlushTables, iptables.NoRestoreCounters); err != nil {
		return err
	}
	_, err := ipt.EnsureRule(iptables.Prepend, iptables.TableFilter, iptables.ChainInput, "-j", string(chain))
	return err
}

func removeIPTables(dataDir string) error {
	var errs []error
	for _, ipt := range iptables.NewBestEffort() {
		errs = append(errs, removeFamily(ipt, chainName(dataDir)))
	}
	return errors.Join(errs...)
}

func removeFamily(ipt iptables.Interface, chain iptables.Chain) error {
	if exists, err := ipt.ChainExists(iptables.TableFilter, chain); err != nil || !exists {
		return nil //nolint:nilerr // the table itself may not be there
	}
	if err := ipt.DeleteRule(iptables.TableFilter, iptables.ChainInput, "-j", string(chain)); err != nil && !iptables.IsNotFoundError(err) {
		return err
	}
	if err := ipt.FlushChain(iptables.TableFilter, chain); err != nil {
		return err
	}
	return ipt.DeleteChain(iptables.TableFilter, chain)
}
