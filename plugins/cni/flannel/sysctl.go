package flannel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
)

const sysctlRoot = "/proc/sys/net"

// setSysctls makes the kernel forward what pods send. It logs each change. All of them
// belong to the process's network namespace.
//
// bridge-nf-call-*: a pod that talks to a Service whose endpoint is on the same node has
// its packets translated by netfilter on the way there; the answer would go through the
// bridge without being translated back.
//
// rp_filter is left alone: with each backend, the way back to a packet's source is the
// interface that it came from, so that even the strict mode holds.
func setSysctls(p *plan, uplink string, log hclog.Logger) error {
	if p.ipv4() {
		if _, err := setSysctl("ipv4/conf/all/forwarding", "1", log); err != nil {
			return err
		}
		if err := setBridgeSysctl("bridge/bridge-nf-call-iptables", log); err != nil {
			return err
		}
	}
	if p.ipv6() {
		// A host that forwards ignores router advertisements, unless this is 2: it
		// would lose its own default route. See the kernel's ip-sysctl.rst.
		if accept, err := readSysctl("ipv6/conf/" + uplink + "/accept_ra"); err == nil && accept == "1" {
			if _, err := setSysctl("ipv6/conf/"+uplink+"/accept_ra", "2", log); err != nil {
				return err
			}
		}
		if _, err := setSysctl("ipv6/conf/all/forwarding", "1", log); err != nil {
			return err
		}
		if err := setBridgeSysctl("bridge/bridge-nf-call-ip6tables", log); err != nil {
			return err
		}
	}
	return nil
}

// setBridgeSysctl sets what exists only with the module br_netfilter.
func setBridgeSysctl(name string, log hclog.Logger) error {
	_, err := setSysctl(name, "1", log)
	if errors.Is(err, fs.ErrNotExist) {
		log.Warn("the kernel module br_netfilter is not loaded: pods reach no Service whose endpoint is on their own node",
			"hint", "modprobe br_netfilter, then restart k3m")
		return nil
	}
	return err
}

// keepAdvertisementsOut makes an interface of ours, which may not exist, ignore router
// advertisements: a pod could send them.
func keepAdvertisementsOut(link string, log hclog.Logger) error {
	_, err := setSysctl("ipv6/conf/"+link+"/accept_ra", "0", log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no IPv6 in this kernel
	}
	return err
}

// setSysctl writes value if it is not there already, and says whether it wrote.
func setSysctl(name, value string, log hclog.Logger) (bool, error) {
	old, err := readSysctl(name)
	if err != nil {
		return false, fmt.Errorf("read sysctl: %w", err)
	}
	if old == value {
		return false, nil
	}
	if err := os.WriteFile(filepath.Join(sysctlRoot, name), []byte(value), 0o644); err != nil {
		return false, fmt.Errorf("set sysctl to %s: %w", value, err)
	}
	log.Info("set sysctl", "name", "net/"+name, "from", old, "to", value)
	return true, nil
}

func readSysctl(name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(sysctlRoot, name))
	return string(bytes.TrimSpace(raw)), err
}
