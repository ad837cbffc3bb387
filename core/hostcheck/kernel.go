package hostcheck

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The oldest kernels with which things work: what Kubernetes is tested with, and what
// kube-proxy asks of nftables (NFTablesKubeProxyKernelVersion).
var (
	oldestKernel    = [2]int{4, 19}
	oldestNFTKernel = [2]int{5, 13}
)

// capabilities that a server can't do without (linux/capability.h), and their names.
var capabilities = map[uint]string{unix.CAP_SYS_ADMIN: "SYS_ADMIN", unix.CAP_NET_ADMIN: "NET_ADMIN", unix.CAP_SYS_PTRACE: "SYS_PTRACE", unix.CAP_MKNOD: "MKNOD"}

func checkPrivileges(_ context.Context, o *Options) []Finding {
	if os.Geteuid() != 0 {
		return skipped("not root, so what has to be tried is not; run it again with sudo")
	}
	held, known := o.capabilities()
	var missing []string
	for _, bit := range []uint{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_MKNOD} {
		if known && held&(1<<bit) == 0 {
			missing = append(missing, capabilities[bit])
		}
	}
	if len(missing) > 0 {
		return []Finding{failure("root here lacks the capabilities "+list(missing)+": this is a container without privileges",
			"run k3m on the machine itself, or in a privileged container (docker run --privileged --cgroupns=host)")}
	}
	return ok("root, with the capabilities that a server needs")
}

// capabilities is the effective set of this process.
func (o *Options) capabilities() (uint64, bool) {
	for line := range strings.Lines(o.read("proc", "self", "status")) {
		if value, found := strings.CutPrefix(line, "CapEff:"); found {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return mask, err == nil
		}
	}
	return 0, false
}

func checkKernel(_ context.Context, o *Options) []Finding {
	release := o.release()
	version, known := parseRelease(release)
	switch {
	case !known:
		return skipped("the kernel's release " + strconv.Quote(release) + " can't be read")
	case older(version, oldestKernel):
		return []Finding{failure(fmt.Sprintf("Linux %s is older than %d.%d, the oldest that Kubernetes works with", release, oldestKernel[0], oldestKernel[1]),
			"upgrade the operating system")}
	case older(version, oldestNFTKernel):
		return []Finding{warning(fmt.Sprintf("Linux %s is older than %d.%d: Services and policies can't use nftables, and network policies are not enforced", release, oldestNFTKernel[0], oldestNFTKernel[1]),
			"upgrade the operating system")}
	}
	return ok("Linux " + release)
}

func (o *Options) release() string { return o.read("proc", "sys", "kernel", "osrelease") }

// parseRelease reads "6.1.0-13-amd64".
func parseRelease(release string) (version [2]int, ok bool) {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return version, false
	}
	for i := range version {
		digits := parts[i]
		if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
			digits = digits[:end]
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			return version, false
		}
		version[i] = n
	}
	return version, true
}

func older(a, b [2]int) bool { return a[0] < b[0] || a[0] == b[0] && a[1] < b[1] }

// namespaces are the kinds that a pod is made of.
var namespaces = []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"}

func checkNamespaces(_ context.Context, o *Options) []Finding {
	var missing []string
	for _, name := range namespaces {
		if !o.exists("proc", "self", "ns", name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return []Finding{failure("the kernel has no namespaces of the kind "+list(missing), "take a kernel with CONFIG_NAMESPACES and all of its kinds")}
	}
	return ok("the kernel has those that pods are made of")
}

// kernelConfig is what the kernel says that it was built with: "y", "m", or "" for what is
// off; ok is false when it does not say.
func (o *Options) kernelConfig(option string) (value string, ok bool) {
	text, err := o.openKernelConfig()
	if err != nil {
		return "", false
	}
	defer text.Close()
	lines := bufio.NewScanner(io.LimitReader(text, maxRead))
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), "CONFIG_"+option+"="); found {
			return strings.Trim(value, `"`), true
		}
	}
	return "", lines.Err() == nil
}

type closers struct {
	io.Reader
	all []io.Closer
}

func (c closers) Close() error {
	var errs []error
	for _, closer := range c.all {
		errs = append(errs, closer.Close())
	}
	return errors.Join(errs...)
}

func (o *Options) openKernelConfig() (io.ReadCloser, error) {
	if f, err := os.Open(o.path("proc", "config.gz")); err == nil {
		text, err := gzip.NewReader(f)
		if err != nil {
			f.Close()
			return nil, err
		}
		return closers{text, []io.Closer{text, f}}, nil
	}
	return os.Open(o.path("boot", "config-"+o.release()))
}

// mendKernel says how to get what the kernel has not shown that it has.
func (o *Options) mendKernel(option, module string) string {
	value, known := o.kernelConfig(option)
	switch {
	case known && value == "":
		return "this kernel was built without CONFIG_" + option + ": take another one"
	case known && value == "m":
		return "load the module (modprobe " + module + "); if there is none, install your distribution's package of further modules (linux-modules-extra-" + o.release() + " on Ubuntu)"
	}
	return "see whether the module can be loaded (modprobe " + module + "), or take a kernel with CONFIG_" + option
}

// moduleKnown tells whether a module is loaded, built in, or can be loaded.
func (o *Options) moduleKnown(module string) bool {
	if o.exists("sys", "module", module) {
		return true
	}
	dir := o.path("lib", "modules", o.release())
	for _, file := range []string{"modules.builtin", "modules.dep"} {
		f, err := os.Open(dir + "/" + file)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(io.LimitReader(f, maxRead))
		found := false
		for lines.Scan() && !found {
			path, _, _ := strings.Cut(lines.Text(), ":")
			found = strings.Contains(path, "/"+module+".ko")
		}
		f.Close()
		if found {
			return true
		}
	}
	return false
}

func checkSecurityModules(_ context.Context, o *Options) []Finding {
	var found []Finding
	if o.read("sys", "module", "apparmor", "parameters", "enabled") == "Y" && !o.anywhere("apparmor_parser") {
		found = append(found, failure("AppArmor is on, but the program apparmor_parser is missing: no container can be started",
			"install the package apparmor (apt install apparmor, zypper install apparmor-parser)"))
	}
	if o.read("sys", "fs", "selinux", "enforce") == "1" {
		found = append(found, warning("SELinux is enforcing; k3m labels no containers, so that it may forbid what they do",
			"watch `ausearch -m avc -ts recent`, and set SELinux to permissive (setenforce 0) if it is in the way"))
	}
	if _, known := o.kernelConfig("SECCOMP_FILTER"); known && !strings.Contains(o.read("proc", "self", "status"), "\nSeccomp:") {
		found = append(found, warning("the kernel has no seccomp: containers can make every system call", o.mendKernel("SECCOMP_FILTER", "seccomp")))
	}
	return orOK(found, "none is in the way")
}

// programDirs are where programs of the system lie.
var programDirs = []string{"usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"}

// anywhere tells whether a program is installed.
func (o *Options) anywhere(program string) bool {
	for _, dir := range programDirs {
		if info, err := os.Stat(o.path(dir, program)); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return true
		}
	}
	return false
}
