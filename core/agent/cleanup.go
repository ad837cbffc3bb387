package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	iptablesproxy "k8s.io/kubernetes/pkg/proxy/iptables"
	nftablesproxy "k8s.io/kubernetes/pkg/proxy/nftables"
	"k8s.io/kubernetes/pkg/util/iptables"

	"github.com/k3m-io/k3m/core/portguard"
)

// Cleanup removes what a node leaves on the host outside its data directory: the rules of kube-proxy,
// the kubelet and portguard, the mounts of pods' volumes, the cgroups of pods. It goes by DataDir and
// CgroupRoot alone. For `k3m uninstall`, after the node and its
// pods have stopped: a cgroup with a process in it stays, and is part of the error. It goes on
// after a failure, and may be called again.
func Cleanup(ctx context.Context, opts Options) error {
	return errors.Join(
		CleanupPods(ctx, opts),
		removePodLogs(opts.path("kubelet", "pods"), opts.podLogsDir(), containerLogsDir, opts.podLogsDir() == opts.path("pod-logs")),
		removeDevicePlugins(ctx),
	)
}

// CleanupPods is the part of Cleanup that a reboot would do as well: rules, mounts and cgroups go,
// logs stay. For `k3m stop --kill-pods`, under the same terms.
func CleanupPods(ctx context.Context, opts Options) error {
	root := path.Clean("/" + opts.CgroupRoot)
	cgroups := []string{path.Join(root, "kubepods"), path.Join(root, "kubepods.slice")}
	if root != "/" {
		cgroups = append(cgroups, root, root+".slice") // the second is what the systemd driver makes of it
	}
	errs := []error{
		removeProxyRules(ctx),
		removeKubeletChains(),
		portguard.Remove(ctx, opts.DataDir),
		unmountBelow(opts.path("kubelet")),
	}
	for _, name := range cgroups {
		errs = append(errs, removeCgroups(name))
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
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}

// containerLogsDir holds links to the logs of containers; its place is fixed in the kubelet.
const containerLogsDir = "/var/log/containers"

// removePodLogs removes the logs of pods and the links to them: all of them from a directory of the
// node's own; from one that is shared with others those of the pods that the kubelet still knew,
// and the directory if it is empty then.
func removePodLogs(pods, logs, links string, own bool) error {
	known, err := os.ReadDir(pods)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove logs of pods: %w", err)
	}
	var errs []error
	for _, pod := range known {
		dirs, err := filepath.Glob(filepath.Join(logs, "*_"+pod.Name())) // <namespace>_<name>_<uid>
		errs = append(errs, err)
		for _, dir := range dirs {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	if own {
		errs = append(errs, os.RemoveAll(logs))
	}
	entries, err := os.ReadDir(links)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		link := filepath.Join(links, e.Name())
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, logs+"/") {
			continue
		}
		if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, os.Remove(link))
		}
	}
	_ = os.Remove(links) // unless something is left in it
	_ = os.Remove(logs)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove logs of pods: %w", err)
	}
	return nil
}

// removeDevicePlugins removes the kubelet's end of the device plugins' socket, whose place is
// fixed (/var/lib/kubelet), unless another kubelet of the host uses it.
func removeDevicePlugins(ctx context.Context) error {
	var dialer net.Dialer
	if conn, err := dialer.DialContext(ctx, "unix", deviceplugin.KubeletSocket); err == nil {
		return conn.Close()
	}
	dir := filepath.Clean(deviceplugin.DevicePluginPath)
	for _, name := range []string{deviceplugin.KubeletSocket, filepath.Join(dir, "kubelet_internal_checkpoint"), filepath.Join(dir, "DEPRECATION")} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the kubelet's socket for device plugins: %w", err)
		}
	}
	_ = os.Remove(dir) // unless something is left in it
	_ = os.Remove(filepath.Dir(dir))
	return nil
}
