package agent

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kernelModules are what containers, bridges and Services need. Most hosts load them on
// demand; br_netfilter is the one that nothing loads by itself, and without it a Service does
// not work between two pods of the same node.
var kernelModules = []string{"overlay", "nf_conntrack", "br_netfilter"}

// netSettings let a node route between pods, and show bridged packets to the packet filter.
var netSettings = []struct{ name, value string }{
	{"net/ipv4/conf/all/forwarding", "1"},
	{"net/ipv6/conf/all/forwarding", "1"},
	{"net/bridge/bridge-nf-call-iptables", "1"},
	{"net/bridge/bridge-nf-call-ip6tables", "1"},
}

// prepareKernel loads modules and sets what the node's network needs. Nothing here ends the
// start: kernels have parts built in that can't be told from missing ones, and a host may have
// done it all before and forbid it now. What is really missing shows up where it is used.
func prepareKernel(ctx context.Context, log *slog.Logger) {
	for _, m := range kernelModules {
		if _, err := os.Stat("/sys/module/" + m); err == nil {
			continue
		}
		if out, err := exec.CommandContext(ctx, "modprobe", "--", m).CombinedOutput(); err != nil {
			log.Debug("kernel module not loaded; it may be built in", "module", m, "error", err, "output", strings.TrimSpace(string(out)))
		}
	}
	for _, s := range netSettings {
		path := filepath.Join("/proc/sys", s.name)
		now, err := os.ReadFile(path)
		if err != nil {
			log.Debug("kernel setting is not there", "setting", s.name, "error", err)
			continue
		}
		if strings.TrimSpace(string(now)) == s.value {
			continue
		}
		if err := os.WriteFile(path, []byte(s.value), 0); err != nil {
			log.Warn("kernel setting can't be changed", "setting", strings.ReplaceAll(s.name, "/", "."), "want", s.value, "error", err)
		}
	}
}
