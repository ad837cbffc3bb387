package agent

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	iptablesproxy "k8s.io/kubernetes/pkg/proxy/iptables"
	nftablesproxy "k8s.io/kubernetes/pkg/proxy/nftables"
	"k8s.io/kubernetes/pkg/util/iptables"
)

// Cleanup removes what a node leaves on the host outside its data directory: the rules of kube-proxy
// and the kubelet, the mounts of pods' volumes, the cgroups of pods. It goes by DataDir and
// CgroupRoot alone. For `k3m uninstall`, after the node and its
// pods have stopped: a cgroup with a process in it stays, and is part of the error. It goes on
// after a failure, and may be called again.
func Cleanup(ctx context.Context, opts Options) error {
	var errs []error
	if err := removeProxyRules(ctx); err != nil {
		errs = append(errs, err)
	}
	if err := removeKubeletChains(); err != nil {
		errs = append(errs, err)
	}
	if err := unmountBelow(opts.path("kubelet")); err != nil {
		errs = append(errs, err)
	}
	root := path.Clean("/" + opts.CgroupRoot)
	for _, name := range []string{"kubepods", "kubepods.slice"} {
		if err := removeCgroups(path.Join(root, name)); err != nil {
			errs = append(errs, err)
		}
	}
	if root != "/" && len(errs) == 0 {
		if err := removeCgroups(root); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeProxyRules removes the rules of both modes, whichever the node used last: a host may
// have changed between two starts. Absent commands are no error: then there are no rules.
func removeProxyRules(ctx context.Context) error {
	var left []string
	if nftablesproxy.CleanupLeftovers(ctx) {
		left = append(left, "nftables tables ip and ip6 kube-proxy")
	}
	if iptablesproxy.CleanupLeftovers(ctx) {
		left = append(left, "iptables chains KUBE-*")
	}
	if len(left) > 0 {
		return fmt.Errorf("remove kube-proxy's rules: %s could not be removed", strings.Join(left, ", "))
	}
	return nil
}

// removeKubeletChains removes the chains that the kubelet makes next to kube-proxy's iptables mode.
func removeKubeletChains() error {
	const firewall = iptables.Chain("KUBE-FIREWALL")
	var errs []error
	for _, ipt := range iptables.NewBestEffort() {
		for _, from := range []iptables.Chain{iptables.ChainInput, iptables.ChainOutput} {
			if err := ipt.DeleteRule(iptables.TableFilter, from, "-j", string(firewall)); err != nil && !iptables.IsNotFoundError(err) {
				errs = append(errs, err)
			}
		}
		for _, table := range []iptables.Table{iptables.TableMangle, iptables.TableNAT, iptables.TableFilter} {
			for _, chain := range []iptables.Chain{firewall, "KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"} {
				if exists, err := ipt.ChainExists(table, chain); err != nil || !exists {
					continue // the table itself may not be there
				}
				err := ipt.FlushChain(table, chain)
				if err == nil {
					err = ipt.DeleteChain(table, chain)
				}
				if err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the kubelet's iptables chains: %w", err)
	}
	return nil
}

// unmountBelow unmounts everything below dir, the deepest first.
func unmountBelow(dir string) error {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("find mounts below %s: %w", dir, err)
	}
	// Later mounts lie over earlier ones: the kernel lists them in order.
	slices.Reverse(mounts)
	var errs []error
	for _, m := range mounts {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}
