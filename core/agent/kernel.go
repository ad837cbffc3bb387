package agent

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	utilsysctl "k8s.io/component-helpers/node/util/sysctl"
	"k8s.io/kubernetes/pkg/kubelet/qos"
)

// kernelSettings are those that the kubelet sets, or ends the process over when it can't
// (setupKernelTunables in its container manager).
var kernelSettings = map[string]int{
	utilsysctl.VMOvercommitMemory: utilsysctl.VMOvercommitMemoryAlways,
	utilsysctl.VMPanicOnOOM:       utilsysctl.VMPanicOnOOMInvokeOOMKiller,
	utilsysctl.KernelPanic:        utilsysctl.KernelPanicRebootTimeout,
	utilsysctl.KernelPanicOnOops:  utilsysctl.KernelPanicOnOopsAlways,
	utilsysctl.RootMaxKeys:        utilsysctl.RootMaxKeysSetting,
	utilsysctl.RootMaxBytes:       utilsysctl.RootMaxBytesSetting,
}

// checkKernelSettings finds settings that differ from what the kubelet wants and can't be
// written, as in a container with a read-only /proc/sys, or must not be.
func checkKernelSettings(kernel utilsysctl.Interface, protected bool) error {
	var wrong []string
	for name, want := range kernelSettings {
		got, err := kernel.GetSysctl(name)
		if err == nil && got == want {
			continue
		}
		if protected || unix.Access("/proc/sys/"+name, unix.W_OK) != nil {
			wrong = append(wrong, fmt.Sprintf("%s=%d", strings.ReplaceAll(name, "/", "."), want))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	why := "can't be changed from here: run on the host"
	if protected {
		why = "--protect-kernel-defaults forbids to change: run"
	}
	sort.Strings(wrong)
	return fmt.Errorf("the kubelet needs kernel settings that %s: sysctl -w %s", why, strings.Join(wrong, " "))
}

// capSysResource is the bit of CAP_SYS_RESOURCE (linux/capability.h).
const capSysResource = 24

// maxOpenFiles is the kubelet's limit of open files, wanted where raising it is allowed, else
// what there is.
func maxOpenFiles(wanted int64) (int64, error) {
	allowed, err := hasCapability(capSysResource)
	if err != nil || allowed {
		return wanted, err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("find the limit of open files: %w", err)
	}
	return min(wanted, int64(min(limit.Max, math.MaxInt64))), nil
}

// oomScoreAdj is the score that this process should give itself: the kubelet's usual one, so
// that the kernel kills nearly everything else before it; or the present one where lowering it is
// not allowed and would fail once a minute.
func oomScoreAdj() (int32, error) {
	allowed, err := hasCapability(capSysResource)
	if err != nil {
		return 0, err
	}
	if allowed {
		return int32(qos.KubeletOOMScoreAdj), nil
	}
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, fmt.Errorf("find the OOM score: %w", err)
	}
	now, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("find the OOM score: %w", err)
	}
	return int32(now), nil
}

// hasCapability says whether the process has a capability in its effective set.
func hasCapability(bit uint) (bool, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return false, fmt.Errorf("find the process's capabilities: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), "CapEff:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return false, fmt.Errorf("find the process's capabilities: %w", err)
			}
			return mask&(1<<bit) != 0, nil
		}
	}
	return false, errors.New("find the process's capabilities: /proc/self/status has no CapEff")
}
