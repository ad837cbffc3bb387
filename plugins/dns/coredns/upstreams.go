package coredns

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
)

// Where a host says which resolvers it uses. The second is the real list behind the stub
// at 127.0.0.53 of systemd-resolved.
const (
	hostResolvConf    = "/etc/resolv.conf"
	systemdResolvConf = "/run/systemd/resolve/resolv.conf"
)

// resolverFiles are those to look into, given the one that pods use. That may be one that
// k3m made, without servers, where the host's are such that only this process can reach.
func resolverFiles(pods string) []string {
	files := []string{hostResolvConf, systemdResolvConf}
	if pods != "" && !slices.Contains(files, pods) {
		files = slices.Insert(files, 0, pods)
	}
	return files
}

// maxResolvConf bounds what is read of such a file, in bytes.
const maxResolvConf = 64 << 10

// settleTime is how long a file may be half written: those who write it truncate it first,
// and an empty list for that moment would cost queries.
const settleTime = 100 * time.Millisecond

// resolvers are the files that name the host's resolvers.
type resolvers struct {
	files []string
	// self are addresses that lead back here: the cluster's DNS, the pod gateways.
	self []netip.Addr
}

// read returns the resolvers that queries can be forwarded to: those of the first file
// that names some which are not on a loopback address, or else those that are on one of
// this host. Loopback addresses come last since a stub resolver there may only pass on
// what another file names; but unlike a pod, this process can reach them. Where there is
// none at all, why says it.
func (r resolvers) read() (upstreams []netip.AddrPort, why string) {
	var local []netip.AddrPort
	var problems []string
	for _, path := range r.files {
		text, err := readBounded(path)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) || len(problems) == 0 {
				problems = append(problems, err.Error())
			}
			continue
		}
		var remote []netip.AddrPort
		named := 0
		for _, addr := range nameservers(text) {
			named++
			upstream := netip.AddrPortFrom(addr, dnsPort)
			switch {
			case slices.Contains(r.self, addr) || addr.Zone() != "":
			case addr.IsLoopback():
				local = append(local, upstream)
			default:
				remote = append(remote, upstream)
			}
		}
		if len(remote) > 0 {
			return unique(remote), ""
		}
		if named == 0 {
			problems = append(problems, path+" names none")
		} else {
			problems = append(problems, path+" names none but the cluster's own or such that can't be forwarded to")
		}
	}
	if len(local) > 0 {
		return unique(local), ""
	}
	return nil, strings.Join(problems, "; ")
}

func unique(upstreams []netip.AddrPort) []netip.AddrPort {
	var once []netip.AddrPort
	for _, u := range upstreams {
		if !slices.Contains(once, u) && len(once) < maxUpstreams {
			once = append(once, u)
		}
	}
	return once
}

func readBounded(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxResolvConf))
	return string(text), err
}

// nameservers reads the addresses of resolv.conf(5) that can be asked.
func nameservers(text string) []netip.Addr {
	var addrs []netip.Addr
	for lines := bufio.NewScanner(bytes.NewBufferString(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() {
			continue
		}
		addrs = append(addrs, addr.Unmap())
	}
	return addrs
}

// watch calls changed when one of the files may have, until ctx ends.
func (r resolvers) watch(ctx context.Context, log hclog.Logger, changed func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the host's list of resolvers: %w", err)
	}
	defer func() { _ = watcher.Close() }() // nothing was written
	r.watchDirs(watcher, log)
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-watcher.Events:
			if !open {
				return errors.New("watch the host's list of resolvers: the watch ended")
			}
			if slices.ContainsFunc(r.paths(), func(path string) bool { return filepath.Clean(event.Name) == path }) {
				settled = time.After(settleTime)
			}
		case err := <-watcher.Errors:
			log.Warn("the watch of the host's list of resolvers lost something; reading it anew", "error", err)
			settled = time.After(settleTime)
		case <-settled:
			settled = nil
			r.watchDirs(watcher, log) // a link may lead elsewhere now
			changed()
		}
	}
}

// paths are the files and what they link to.
func (r resolvers) paths() []string {
	paths := slices.Clone(r.files)
	for _, file := range r.files {
		if target, err := filepath.EvalSymlinks(file); err == nil && !slices.Contains(paths, target) {
			paths = append(paths, target)
		}
	}
	return paths
}

// watchDirs watches the directories, since files are mostly replaced.
func (r resolvers) watchDirs(watcher *fsnotify.Watcher, log hclog.Logger) {
	for _, path := range r.paths() {
		dir := filepath.Dir(path)
		if err := watcher.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("can't watch for changes of the host's resolvers", "dir", dir, "error", err)
		}
	}
}
