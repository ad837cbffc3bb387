package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

const suite = "K3M_LEDGER_TEST_SUITE"

// The tests run in a network namespace of their own.
func TestMain(m *testing.M) {
	if os.Getenv(suite) != "" || os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // go test's own timeout ends it
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.Args[0] = os.Args[0]
	again.Env = append(os.Environ(), suite+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := again.Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		os.Exit(failed.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the tests in a network namespace of their own:", err)
		os.Exit(1)
	}
}

func TestRecord(t *testing.T) {
	dir := t.TempDir()
	looks := 0
	look := func() *Machine { looks++; return &Machine{Interfaces: []string{"lo"}} }
	if _, err := Read(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("of a directory without one: %v", err)
	}
	record := func(s Start) Ledger {
		t.Helper()
		s.DataDir = dir
		if err := Record(s, look); err != nil {
			t.Fatal(err)
		}
		l, err := Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	record(Start{RunDir: "/run/a", Kubeconfig: "/etc/a", LocalStoragePath: "/srv/a", Release: "v1", Components: []string{"cni.a", "dns.a"}})
	written, err := os.Stat(File(dir))
	if err != nil || written.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", written.Mode(), err)
	}
	record(Start{RunDir: "/run/a", Kubeconfig: "/etc/a", LocalStoragePath: "/srv/a", Release: "v1", Components: []string{"dns.a", "cni.a"}})
	if again, err := os.Stat(File(dir)); err != nil || !os.SameFile(written, again) {
		t.Errorf("the same start wrote it anew, %v", err)
	}
	l := record(Start{RunDir: "/run/b", Kubeconfig: "/etc/b", LocalStoragePath: "/srv/a", Release: "v2", Components: []string{"cni.b"}})
	if l.Kubeconfig != "/etc/b" || !slices.Equal(l.Kubeconfigs, []string{"/etc/a", "/etc/b"}) || !slices.Equal(l.RunDirs, []string{"/run/a", "/run/b"}) ||
		!slices.Equal(l.LocalStoragePaths, []string{"/srv/a"}) || !slices.Equal(l.Releases, []string{"v1", "v2"}) || !slices.Equal(l.Components, []string{"cni.a", "dns.a", "cni.b"}) {
		t.Errorf("it holds %+v", l)
	}
	if looks != 1 || l.Before == nil || l.Before.Interfaces[0] != "lo" {
		t.Errorf("looked %d times at the machine: %+v", looks, l.Before)
	}
}

// TestOlderLedgers are those of releases before, and of half a write of them.
func TestOlderLedgers(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(File(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"kubeconfig":"/etc/old","localStoragePath":"/srv/old"}`)
	l, err := Read(dir)
	if err != nil || !slices.Equal(l.Kubeconfigs, []string{"/etc/old"}) || !slices.Equal(l.LocalStoragePaths, []string{"/srv/old"}) {
		t.Errorf("read %+v, %v", l, err)
	}
	// The machine as it was before is not known any more.
	if err := Record(Start{DataDir: dir, Kubeconfig: "/etc/new"}, func() *Machine { return &Machine{} }); err != nil {
		t.Fatal(err)
	}
	if l, err := Read(dir); err != nil || l.Before != nil || !slices.Equal(l.Kubeconfigs, []string{"/etc/old", "/etc/new"}) {
		t.Errorf("read %+v, %v", l, err)
	}
	write(`{"kubeconfig":"/etc/o`)
	if l, err := Read(dir); err != nil || len(l.Kubeconfigs) != 0 {
		t.Errorf("read %+v, %v", l, err)
	}
	write(strings.Repeat(" ", maxFile+1))
	if _, err := Read(dir); err != nil {
		t.Error(err)
	}
}

func run(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

func addLink(t *testing.T, name, alias string) {
	t.Helper()
	a := netlink.NewLinkAttrs()
	a.Name = name
	link := &netlink.Bridge{LinkAttrs: a}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) }) // the test may have
	if alias != "" {
		if err := netlink.LinkSetAlias(link, alias); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSweep has a machine with somebody else's interfaces, tables and chains, some of which are
// called like a node's, and what a node made that nobody removed.
func TestSweep(t *testing.T) {
	if os.Getenv(suite) == "" {
		t.Skip("needs root, for a network namespace")
	}
	// Before the first start.
	addLink(t, "flannel-wg", "")
	run(t, "nft", "add", "table", "ip", "cni_hostport")
	run(t, "iptables", "-N", "KUBE-OTHERS")
	run(t, "iptables", "-A", "FORWARD", "-j", "KUBE-OTHERS")
	l := Ledger{Before: Look(t.Context())}
	before := machineText(t)

	addLink(t, "cni0", "k3m cni.flannel")
	addLink(t, "flannel.1", "")
	addLink(t, "old0", "k3m cni.of-an-older-release")
	run(t, "nft", "add", "table", "ip", "kube-proxy")
	run(t, "nft", "add", "table", "inet", "k3m-of-an-older-release")
	run(t, "iptables", "-t", "nat", "-N", "KUBE-SERVICES")
	run(t, "iptables", "-t", "nat", "-N", "KUBE-SVC-A")
	run(t, "iptables", "-t", "nat", "-A", "KUBE-SERVICES", "-m", "comment", "--comment", "default/web \"cluster\" IP", "-j", "KUBE-SVC-A")
	run(t, "iptables", "-t", "nat", "-A", "PREROUTING", "-m", "comment", "--comment", "kubernetes service portals", "-j", "KUBE-SERVICES")
	run(t, "iptables", "-N", "FLANNEL-FWD")
	run(t, "iptables", "-I", "FORWARD", "1", "-j", "FLANNEL-FWD")
	// Somebody else's, and another node's, made since.
	addLink(t, "docker0", "")
	run(t, "nft", "add", "table", "inet", "k3m-guard-0123abcd")
	run(t, "iptables", "-N", "DOCKER")
	run(t, "iptables", "-N", "K3M-GUARD-0123ABCD")
	others := []string{"docker0", "k3m-guard-0123abcd", "DOCKER", "K3M-GUARD-0123ABCD"}

	removed, err := l.Sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := machineText(t)
	for _, other := range others {
		if !strings.Contains(text, other) {
			t.Errorf("%s is gone", other)
		}
	}
	for line := range strings.Lines(before) {
		if !strings.Contains(text, line) {
			t.Errorf("gone: %s", line)
		}
	}
	for line := range strings.Lines(text) {
		stays := slices.ContainsFunc(others, func(o string) bool { return strings.Contains(line, o) })
		if !stays && !strings.Contains(before, line) && !strings.HasPrefix(line, "#") {
			t.Errorf("left: %s", line)
		}
	}
	for _, want := range []string{"interface cni0", "interface old0", "nftables table ip kube-proxy", "iptables chain nat KUBE-SERVICES", "iptables chain filter FLANNEL-FWD"} {
		if !slices.Contains(removed, want) {
			t.Errorf("%q is not among %q", want, removed)
		}
	}
	if again, err := l.Sweep(t.Context()); err != nil || len(again) != 0 {
		t.Errorf("the second time it removed %q, %v", again, err)
	}
}

// machineText is all that the test looks at.
func machineText(t *testing.T) string {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, l := range all {
		fmt.Fprintln(&b, "interface", l.Attrs().Name)
	}
	b.WriteString(run(t, "nft", "list", "tables"))
	for line := range strings.Lines(run(t, "iptables-save")) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") || strings.Contains(line, "- [") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestSweepWithoutALedger leaves all that another Kubernetes could have made.
func TestSweepWithoutALedger(t *testing.T) {
	if os.Getenv(suite) == "" {
		t.Skip("needs root, for a network namespace")
	}
	addLink(t, "cni0", "")
	addLink(t, "mine0", "k3m cni.flannel")
	run(t, "nft", "add", "table", "ip", "kube-proxy")
	run(t, "iptables", "-N", "KUBE-FORWARD")
	t.Cleanup(func() { _ = exec.Command("iptables", "-X", "KUBE-FORWARD").Run() }) //nolint:noctx // the namespace goes as well
	var l Ledger
	removed, err := l.Sweep(t.Context())
	if err != nil || !slices.Equal(removed, []string{"interface mine0"}) {
		t.Errorf("removed %q, %v", removed, err)
	}
}

func TestChanged(t *testing.T) {
	l := Ledger{Before: &Machine{Settings: map[string]string{"net.ipv4.ip_forward": "0", "kernel.panic": "10"}}}
	now := &Machine{Settings: map[string]string{"net.ipv4.ip_forward": "1", "kernel.panic": "10", "net.bridge.bridge-nf-call-iptables": "1"}}
	if got := l.Changed(now); !slices.Equal(got, []string{"net.ipv4.ip_forward=0"}) {
		t.Errorf("changed: %q", got)
	}
}

func FuzzRemoval(f *testing.F) {
	f.Add("*nat\n:KUBE-A - [0:0]\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j KUBE-A\n-A KUBE-A -j\nCOMMIT\n")
	f.Fuzz(func(t *testing.T, saved string) {
		script, _ := removal(saved, func(string) bool { return true })
		for line := range strings.Lines(script) {
			if strings.HasPrefix(line, "-X ") && !slices.ContainsFunc(chains, func(p string) bool { return strings.HasPrefix(line[3:], p) }) {
				t.Errorf("it removes %q", line)
			}
		}
	})
}
