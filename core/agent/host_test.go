package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/kubernetes/pkg/util/iptables"
	"sigs.k8s.io/knftables"
)

func TestDetectPacketFilter(t *testing.T) {
	needRoot(t)
	t.Run("nftables", func(t *testing.T) {
		got := DetectPacketFilter(t.Context())
		if got.Mode != ModeNFTables || got.Reason == "" {
			t.Errorf("got %+v; this machine's kernel and nft can do nftables", got)
		}
		nft, err := knftables.New(knftables.IPv4Family, "k3m-check")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nft.ListAll(t.Context()); !knftables.IsNotFound(err) {
			t.Errorf("the check left its table: %v", err)
		}
	})
	for name, c := range map[string]struct{ script, want string }{
		"no nft command":          {"", "could not find nftables binary"},
		"nft too old":             {"#!/bin/sh\necho 'nftables v0.9.8 (E.D.S.)'\n", "nft version must be v1.0.1 or later"},
		"nft that is not allowed": {"#!/bin/sh\n[ \"$1\" = --version ] && echo 'nftables v1.0.6' && exit\necho 'Operation not permitted' >&2; exit 1\n", "Operation not permitted"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.script != "" {
				if err := os.WriteFile(filepath.Join(dir, "nft"), []byte(c.script), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir)
			got := DetectPacketFilter(t.Context())
			if got.Mode != ModeIPTables || !strings.Contains(got.Reason, c.want) {
				t.Errorf("got %+v; want iptables because of %q", got, c.want)
			}
		})
	}
}

func TestHostIPs(t *testing.T) {
	needRoot(t)
	if ips, err := HostIPs(true); err == nil || !strings.Contains(err.Error(), "--node-ip") {
		t.Errorf("with the loopback alone: %v, %v", ips, err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "one"}, PeerName: "other"}); err != nil {
		t.Fatal(err)
	}
	one, err := netlink.LinkByName("one")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(one) })
	want := map[bool]netip.Addr{}
	for _, cidr := range []string{"2001:db8::7/64", "192.0.2.7/24"} {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(one, addr); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(one); err != nil {
			t.Fatal(err)
		}
		ip := netip.MustParsePrefix(cidr).Addr()
		want[ip.Is4()] = ip
		ips, err := HostIPs(ip.Is4())
		if err != nil || len(ips) != 1 || ips[0] != ip {
			t.Errorf("%v, %v; want %v", ips, err, ip)
		}
	}
	for _, families := range [][]bool{{true, false}, {false, true}} {
		ips, err := HostIPs(families...)
		if err != nil || len(ips) != 2 || ips[0] != want[families[0]] || ips[1] != want[families[1]] {
			t.Errorf("families %v: %v, %v; want %v", families, ips, err, want)
		}
	}
}

// kernel is what a host's kernel is set to.
type kernel map[string]int

func (k kernel) GetSysctl(name string) (int, error) { return k[name], nil }
func (k kernel) SetSysctl(name string, value int) error {
	k[name] = value
	return nil
}

func TestProtectedKernelSettings(t *testing.T) {
	right := kernel{}
	for name, value := range kernelSettings {
		right[name] = value
	}
	if err := checkKernelSettings(right, true); err != nil {
		t.Errorf("settings that are right: %v", err)
	}
	wrong := maps.Clone(right)
	wrong["vm/overcommit_memory"] = 0
	err := checkKernelSettings(wrong, true)
	if err == nil || !strings.Contains(err.Error(), "--protect-kernel-defaults") || !strings.Contains(err.Error(), "sysctl -w vm.overcommit_memory=1") {
		t.Errorf("a wrong setting: %v", err)
	}
	if wrong["vm/overcommit_memory"] != 0 {
		t.Error("the setting was changed")
	}
}

func TestResolvConf(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", "# hand-made\nsearch example.com\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n")
	stub := write("stub", "nameserver 127.0.0.53\noptions edns0 trust-ad\n")
	mixed := write("mixed", "nameserver 192.0.2.53\nnameserver 127.0.0.1\n")
	scoped := write("scoped", "nameserver fe80::1%eth0\n")
	rubbish := write("rubbish", "nameserver dns.example.com\n")
	empty := write("empty", "")
	missing := filepath.Join(dir, "missing")
	for name, c := range map[string]struct {
		candidates []string
		want       string // "" is a generated one
	}{
		"the host's own":                        {[]string{good, missing}, good},
		"the list behind a stub":                {[]string{stub, good}, good},
		"a stub alone":                          {[]string{stub, missing}, ""},
		"a local cache beside a real server":    {[]string{mixed}, ""},
		"a server on one interface of the host": {[]string{scoped}, ""},
		"a server by name":                      {[]string{rubbish}, ""},
		"no server":                             {[]string{empty}, ""},
		"no file":                               {[]string{missing}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			generated := filepath.Join(t.TempDir(), "resolv.conf")
			got, err := pickResolvConf(c.candidates, generated, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if c.want != "" {
				if got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
				return
			}
			text, err := os.ReadFile(got)
			if err != nil || got != generated || strings.Contains(string(text), "nameserver ") {
				t.Errorf("got %s with %q, %v; want a generated file without servers", got, text, err)
			}
		})
	}
}

func FuzzUsableByPods(f *testing.F) {
	f.Add("nameserver 192.0.2.53\n")
	f.Add("nameserver")
	f.Fuzz(func(t *testing.T, text string) {
		if usableByPods(text) && !strings.Contains(text, "nameserver") {
			t.Errorf("%q has no server", text)
		}
	})
}

func TestCgroupRoot(t *testing.T) {
	needRoot(t)
	const root = "/k3m-agent-test"
	if err := ensureCgroupRoot(root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = removeCgroups(root) })
	m, err := cgroupManager(root)
	if err != nil {
		t.Fatal(err)
	}
	paths := m.GetPaths()
	if len(paths) == 0 {
		t.Fatal("no hierarchy found")
	}
	for name, path := range paths {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("controller %q: %v", name, err)
		}
		if err := os.MkdirAll(filepath.Join(path, "kubepods", "burstable"), 0o755); err != nil {
			t.Error(err)
		}
	}
	if err := ensureCgroupRoot(root); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if err := removeCgroups(root); err != nil {
		t.Error(err)
	}
	for name, path := range paths {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("controller %q: %s is still there: %v", name, path, err)
		}
	}
	if err := removeCgroups("/"); err == nil {
		t.Error("would remove the root")
	}
}

func TestCleanup(t *testing.T) {
	needRoot(t)
	o := Options{DataDir: t.TempDir(), CgroupRoot: "/k3m-agent-test-cleanup"}
	if err := ensureCgroupRoot(o.CgroupRoot); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = removeCgroups(o.CgroupRoot) })
	m, err := cgroupManager(o.CgroupRoot + "/kubepods/pod1")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(-1); err != nil {
		t.Fatal(err)
	}
	nft, err := knftables.New(knftables.IPv4Family, "kube-proxy")
	if err != nil {
		t.Fatal(err)
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Add(&knftables.Chain{Name: "services"})
	if err := nft.Run(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	ipt := iptables.New(iptables.ProtocolIPv4)
	for _, args := range [][]string{
		{"-t", "mangle", "-N", "KUBE-IPTABLES-HINT"}, {"-t", "mangle", "-N", "KUBE-KUBELET-CANARY"},
		{"-N", "KUBE-FIREWALL"}, {"-A", "KUBE-FIREWALL", "-d", "127.0.0.0/8", "-j", "DROP"}, {"-A", "INPUT", "-j", "KUBE-FIREWALL"},
		{"-t", "nat", "-N", "KUBE-SERVICES"}, {"-t", "nat", "-A", "PREROUTING", "-m", "comment", "--comment", "kubernetes service portals", "-j", "KUBE-SERVICES"},
		{"-N", "OTHERS"},
	} {
		if out, err := exec.CommandContext(t.Context(), "iptables", args...).CombinedOutput(); err != nil {
			t.Fatalf("iptables %v: %v: %s", args, err, out)
		}
	}
	volume := o.path("kubelet", "pods", "uid", "volumes", "token")
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one over the other
		if err := unix.Mount("tmpfs", volume, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	o.PodLogsDir = t.TempDir() // shared with others, as /var/log/pods is
	logs := filepath.Join(o.podLogsDir(), "default_web_uid", "web")
	others := filepath.Join(o.podLogsDir(), "default_other_uid2", "web")
	for _, dir := range []string{logs, others, containerLogsDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"web": logs, "other": others, "foreign": "/nowhere"} {
		if err := os.Symlink(target, filepath.Join(containerLogsDir, name+".log")); err != nil {
			t.Fatal(err)
		}
	}
	for _, pass := range []string{"first", "second, with nothing left to do"} {
		if err := Cleanup(t.Context(), o); err != nil {
			t.Errorf("%s: %v", pass, err)
		}
	}
	if _, err := nft.ListAll(t.Context()); !knftables.IsNotFound(err) {
		t.Errorf("table kube-proxy is still there: %v", err)
	}
	for path, want := range map[string]bool{logs: false, others: true, containerLogsDir + "/web.log": false, containerLogsDir + "/other.log": true, containerLogsDir + "/foreign.log": true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	var left bytes.Buffer
	for _, table := range []iptables.Table{iptables.TableFilter, iptables.TableNAT, iptables.TableMangle} {
		if err := ipt.SaveInto(table, &left); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(left.String(), "KUBE-") || !strings.Contains(left.String(), "OTHERS") {
		t.Errorf("iptables has:\n%s", &left)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), volume) {
		t.Errorf("%s is still mounted, %v", volume, err)
	}
	for name, path := range m.GetPaths() {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("controller %q: %s is still there: %v", name, path, err)
		}
	}
}

func TestCleanupRemovesLogsThatTheKubeletForgot(t *testing.T) {
	dir := t.TempDir()
	logs, links := filepath.Join(dir, "pod-logs"), filepath.Join(dir, "containers")
	log := filepath.Join(logs, "default_gone_uid", "web", "0.log")
	if err := errors.Join(os.MkdirAll(filepath.Dir(log), 0o755), os.WriteFile(log, nil, 0o600), os.Mkdir(links, 0o755),
		os.Symlink(log, filepath.Join(links, "gone.log"))); err != nil {
		t.Fatal(err)
	}
	if err := removePodLogs(filepath.Join(dir, "no-pods"), logs, links, true); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestPrepareKernel(t *testing.T) {
	needRoot(t)
	const forwarding = "/proc/sys/net/ipv4/conf/all/forwarding"
	if err := os.WriteFile(forwarding, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	prepareKernel(context.WithoutCancel(t.Context()), slog.New(slog.DiscardHandler))
	if got, err := os.ReadFile(forwarding); err != nil || strings.TrimSpace(string(got)) != "1" {
		t.Errorf("forwarding is %q, %v", got, err)
	}
}

func TestOOMScoreAdj(t *testing.T) {
	got, err := oomScoreAdj()
	if err != nil {
		t.Fatal(err)
	}
	// Whatever it says must be allowed.
	path := "/proc/self/oom_score_adj"
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	allowed, err := hasCapability(capSysResource)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSpace(string(before)); !allowed && want != itoa(got) {
		t.Errorf("got %d, want the present %s", got, want)
	}
	if allowed && got != -999 {
		t.Errorf("got %d, want -999", got)
	}
}
