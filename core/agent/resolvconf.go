package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/k3m-io/k3m/core/atomicfile"
)

// resolvConfCandidates are where a host says which name servers it uses. The second is the
// real list behind the stub at 127.0.0.53 of systemd-resolved.
var resolvConfCandidates = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

// ResolvConf returns the path of a resolv.conf that pods can use, for those that ask for the
// node's name servers (dnsPolicy Default) and for the cluster's DNS, which forwards to them. A
// server on a loopback address, such as a local cache, would be another one inside a pod's
// network. When the host has no other, pods get a file without name servers, made below dataDir:
// k3m doesn't send the names that a machine asks for to a public server that nobody chose.
func ResolvConf(dataDir string, log *slog.Logger) (string, error) {
	return pickResolvConf(resolvConfCandidates, filepath.Join(dataDir, "agent", "etc", "resolv.conf"), log)
}

func pickResolvConf(candidates []string, generated string, log *slog.Logger) (string, error) {
	for _, path := range candidates {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("find the node's name servers: %w", err)
		}
		if usableByPods(string(data)) {
			return path, nil
		}
	}
	log.Warn("the host has no name server that pods can reach; pods with dnsPolicy Default resolve nothing",
		"hint", "name a file with name servers: --resolv-conf FILE")
	const text = "# Made by k3m: the host has no name server that pods can reach.\n"
	if err := atomicfile.Write(generated, []byte(text), 0o644); err != nil {
		return "", err
	}
	return generated, nil
}

// usableByPods says whether a resolv.conf names a server, and only such that mean the same
// machine inside a pod.
func usableByPods(text string) bool {
	servers := 0
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil || addr.IsLoopback() || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLinkLocalUnicast() {
			return false
		}
		servers++
	}
	return servers > 0
}
