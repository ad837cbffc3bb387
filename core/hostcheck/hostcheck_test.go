package hostcheck

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// machine is one that exists as files only.
func machine(t *testing.T, files map[string]string) *Options {
	t.Helper()
	o := &Options{
		root: t.TempDir(), DataDir: "/var/lib/k3m",
		PodRanges: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, ServiceRanges: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")},
		Ports: []Port{{Who: "the API", Protocol: "TCP", Number: 7443}, {Who: "a check", Protocol: "TCP", Address: netip.MustParseAddr("127.0.0.1"), Number: 10248}},
	}
	for name, text := range files {
		path := filepath.Join(o.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestMachines has what each check finds on machines that lack something, or do not.
func TestMachines(t *testing.T) {
	const release = "proc/sys/kernel/osrelease"
	for name, tc := range map[string]struct {
		files map[string]string
		look  func(context.Context, *Options) []Finding
		level Level
		found string
		fix   string
	}{
		"kernel":                 {map[string]string{release: "6.1.0-13-amd64\n"}, checkKernel, OK, "Linux 6.1.0-13-amd64", ""},
		"kernel without nft":     {map[string]string{release: "5.4.0-1-generic\n"}, checkKernel, Warning, "older than 5.13", "upgrade"},
		"ancient kernel":         {map[string]string{release: "3.10.0-1160.el7.x86_64\n"}, checkKernel, Failure, "older than 4.19", "upgrade"},
		"odd kernel":             {map[string]string{release: "plan9\n"}, checkKernel, Skipped, `"plan9"`, ""},
		"no namespaces":          {nil, checkNamespaces, Failure, "cgroup, ipc, mnt, net, pid, uts", "CONFIG_NAMESPACES"},
		"apparmor":               {map[string]string{"sys/module/apparmor/parameters/enabled": "Y\n", "usr/sbin/apparmor_parser": "x"}, checkSecurityModules, OK, "none", ""},
		"apparmor without tool":  {map[string]string{"sys/module/apparmor/parameters/enabled": "Y\n"}, checkSecurityModules, Failure, "apparmor_parser is missing", "apt install apparmor"},
		"selinux":                {map[string]string{"sys/fs/selinux/enforce": "1"}, checkSecurityModules, Warning, "SELinux is enforcing", "setenforce 0"},
		"no packet filter":       {nil, checkPacketFilter, Failure, "neither nft nor iptables", "install nftables"},
		"cgroups 2":              {map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids\n"}, checkCgroups, OK, "version 2", ""},
		"raspberry pi":           {map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io hugetlb pids\n"}, checkCgroups, Failure, "lacks the controllers memory", "cmdline.txt"},
		"no huge pages":          {map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n"}, checkCgroups, Warning, "hugetlb is missing", "take a kernel"},
		"cgroups 1":              {map[string]string{"proc/self/mountinfo": "1 2 0:3 / /sys/fs/cgroup/all rw - cgroup cgroup rw,cpu,cpuset,memory,pids,hugetlb\n"}, checkCgroups, Warning, "version 1", "unified_cgroup_hierarchy=1"},
		"no cgroups":             {nil, checkCgroups, Failure, "no cgroup hierarchy", "mount -t cgroup2"},
		"little memory":          {map[string]string{"proc/meminfo": "MemTotal:         262144 kB\n"}, checkMemory, Warning, "256 MiB", "disable components"},
		"much memory":            {map[string]string{"proc/meminfo": "MemTotal:       25165824 kB\n"}, checkMemory, OK, "24 GiB", ""},
		"swap":                   {map[string]string{"proc/swaps": "Filename Type Size Used Priority\n/dev/sda2 partition 8 0 -2\n"}, checkSwap, Warning, "/dev/sda2", "swapoff -a"},
		"zram":                   {map[string]string{"proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 8 0 -2\n"}, checkSwap, OK, "/dev/zram0", ""},
		"no swap":                {map[string]string{"proc/swaps": "Filename Type Size Used Priority\n"}, checkSwap, OK, "none", ""},
		"few inotify instances":  {map[string]string{"proc/sys/fs/inotify/max_user_instances": "128", "proc/sys/fs/inotify/max_user_watches": "1000000"}, checkInotify, Warning, "max_user_instances is 128", "sysctl -w fs.inotify.max_user_instances=2048"},
		"enough inotify":         {map[string]string{"proc/sys/fs/inotify/max_user_instances": "8192", "proc/sys/fs/inotify/max_user_watches": "1000000"}, checkInotify, OK, "", ""},
		"bridge filter":          {map[string]string{"proc/sys/net/bridge/bridge-nf-call-iptables": "1"}, checkBridgeFilter, OK, "there", ""},
		"bridge filter loadable": {map[string]string{release: "6.1.0", "lib/modules/6.1.0/modules.dep": "kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz\n"}, checkBridgeFilter, OK, "k3m loads it", ""},
		"bridge filter missing":  {map[string]string{release: "6.1.0", "proc/config.gz": zipped(t, "CONFIG_BRIDGE=y\n# CONFIG_BRIDGE_NETFILTER is not set\n")}, checkBridgeFilter, Warning, "br_netfilter is missing", "built without CONFIG_BRIDGE_NETFILTER"},
		"bridge filter packaged": {map[string]string{release: "6.1.0", "boot/config-6.1.0": "CONFIG_BRIDGE_NETFILTER=m\n"}, checkBridgeFilter, Warning, "br_netfilter is missing", "linux-modules-extra-6.1.0"},
		"hostname":               {map[string]string{"proc/sys/kernel/hostname": "Edge-1.example.org\n"}, checkHostname, OK, "Edge-1.example.org", ""},
		"odd hostname":           {map[string]string{"proc/sys/kernel/hostname": "my_host\n"}, checkHostname, Failure, `"my_host" can't be a node's name`, "--node-name"},
		"everybody's hostname":   {map[string]string{"proc/sys/kernel/hostname": "raspberrypi\n"}, checkHostname, Warning, `"raspberrypi"`, "hostnamectl"},
		"machine id":             {map[string]string{"etc/machine-id": "3d1219c7c4c5404aaa1f6d2a48adfda4\n"}, checkMachineID, OK, "", ""},
		"no machine id":          {nil, checkMachineID, Warning, "missing or empty", "systemd-machine-id-setup"},
		"image's machine id":     {map[string]string{"etc/machine-id": "uninitialized\n"}, checkMachineID, Warning, "does not hold an ID", "systemd-machine-id-setup"},
		"firewalld":              {map[string]string{"proc/77/comm": "firewalld\n"}, checkFirewall, Warning, "firewalld (pid 77)", "--add-source=10.42.0.0/16 --add-source=10.43.0.0/16 && firewall-cmd --permanent --add-port=7443/tcp && firewall-cmd --reload"},
		"ufw":                    {map[string]string{"etc/ufw/ufw.conf": "# ufw\nENABLED=yes\n"}, checkFirewall, Warning, "ufw is enabled", "ufw allow from 10.43.0.0/16 && ufw allow 7443/tcp && ufw default"},
		"ufw is off":             {map[string]string{"etc/ufw/ufw.conf": "# ufw\nENABLED=no\n"}, checkFirewall, OK, "", ""},
		"k3s was here":           {map[string]string{"var/lib/rancher/k3s/server/token": "x"}, checkLeftovers, Warning, "k3s was here and left /var/lib/rancher/k3s", "k3s-uninstall.sh"},
		"k3s is here":            {map[string]string{"proc/9/comm": "k3s-server\n"}, checkLeftovers, Failure, "k3s-server (pid 9)", "k3s-uninstall.sh"},
		"kubeadm was here":       {map[string]string{"etc/kubernetes/kubelet.conf": "x"}, checkLeftovers, Warning, "kubeadm was here", "kubeadm reset"},
		"a CNI configuration":    {map[string]string{"etc/cni/net.d/10-calico.conflist": "{}"}, checkLeftovers, Warning, "/etc/cni/net.d", "remove it"},
	} {
		t.Run(name, func(t *testing.T) {
			o := machine(t, tc.files)
			var findings []string
			for _, f := range tc.look(t.Context(), o) {
				if f.Level == tc.level && strings.Contains(f.Found, tc.found) && strings.Contains(f.Fix, tc.fix) && (f.Fix == "") == (tc.fix == "") {
					return
				}
				findings = append(findings, string(f.Level)+": "+f.Found+" | "+f.Fix)
			}
			t.Errorf("want %s: %s | %s, got\n%s", tc.level, tc.found, tc.fix, strings.Join(findings, "\n"))
		})
	}
}

func TestClock(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	o := machine(t, map[string]string{"var/lib/k3m/server/tls/server-ca.crt": string(text)})
	for name, tc := range map[string]struct {
		now   time.Time
		level Level
		found string
	}{
		"now":                {time.Now(), OK, "UTC"},
		"no battery":         {time.Unix(0, 0), Failure, "1970-01-01, which is past"},
		"before the cluster": {plausible.Add(time.Hour), Failure, "not valid yet"},
		"long after it":      {time.Now().AddDate(200, 0, 0), Failure, "ended at"},
	} {
		t.Run(name, func(t *testing.T) {
			got := clockFindings(o, tc.now)[0]
			if got.Level != tc.level || !strings.Contains(got.Found, tc.found) {
				t.Errorf("%+v, want %s: %s", got, tc.level, tc.found)
			}
		})
	}
}

func TestDisk(t *testing.T) {
	whole := unix.Statfs_t{Type: unix.EXT4_SUPER_MAGIC, Bsize: 4096, Blocks: 10 << 20, Bavail: 5 << 20, Files: 1000, Ffree: 900}
	for name, tc := range map[string]struct {
		change func(*unix.Statfs_t)
		level  Level
		found  string
	}{
		"half full":    {func(*unix.Statfs_t) {}, OK, "20 GiB of space"},
		"nearly full":  {func(fs *unix.Statfs_t) { fs.Bavail = fs.Blocks * 7 / 100 }, Warning, "7 % of the space"},
		"full":         {func(fs *unix.Statfs_t) { fs.Bavail = 100 }, Failure, "too little to start"},
		"many files":   {func(fs *unix.Statfs_t) { fs.Ffree = 3 }, Warning, "inodes"},
		"read-only":    {func(fs *unix.Statfs_t) { fs.Flags = unix.ST_RDONLY }, Failure, "read-only"},
		"noexec":       {func(fs *unix.Statfs_t) { fs.Flags = unix.ST_NOEXEC }, Failure, "noexec"},
		"nfs":          {func(fs *unix.Statfs_t) { fs.Type = unix.NFS_SUPER_MAGIC }, Warning, "NFS"},
		"tmpfs":        {func(fs *unix.Statfs_t) { fs.Type = unix.TMPFS_MAGIC }, Warning, "empty after a reboot"},
		"usb stick":    {func(fs *unix.Statfs_t) { fs.Type = unix.MSDOS_SUPER_MAGIC }, Failure, "FAT"},
		"btrfs has no": {func(fs *unix.Statfs_t) { fs.Files, fs.Ffree = 0, 0 }, OK, "space"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := whole
			tc.change(&fs)
			if got := diskFindings("/var/lib/k3m", &fs)[0]; got.Level != tc.level || !strings.Contains(got.Found, tc.found) {
				t.Errorf("%+v, want %s: %s", got, tc.level, tc.found)
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	route := func(to string, link int) netlink.Route {
		r := netlink.Route{LinkIndex: link}
		if to != "" {
			_, r.Dst, _ = net.ParseCIDR(to)
		}
		return r
	}
	via := func(r netlink.Route) netlink.Route { r.Gw = net.IPv4(192, 168, 1, 2); return r }
	names := map[int]string{2: "eth0", 3: "cni0", 4: "wg0"}
	for name, tc := range map[string]struct {
		used   bool
		routes []netlink.Route
		level  Level
		found  string
	}{
		"a usual machine":         {false, []netlink.Route{route("", 2), route("192.168.1.0/24", 2)}, "", ""},
		"a node":                  {true, []netlink.Route{route("192.168.1.0/24", 2), route("10.42.0.0/24", 3), via(route("10.42.1.0/24", 2))}, "", ""},
		"another's pods":          {false, []netlink.Route{route("192.168.1.0/24", 2), route("10.42.0.0/24", 3)}, Failure, "10.42.0.0/24 (cni0), inside of the range of pods"},
		"a VPN that takes all":    {false, []netlink.Route{route("192.168.1.0/24", 2), route("10.0.0.0/8", 4)}, Warning, "10.0.0.0/8 (wg0)"},
		"a network like a node's": {false, []netlink.Route{route("192.168.1.0/24", 2), via(route("10.42.1.0/24", 2))}, Failure, "10.42.1.0/24 (eth0)"},
		"services":                {false, []netlink.Route{route("10.43.7.0/24", 2)}, Warning, "range of services"},
		"nothing but link-local":  {false, []netlink.Route{route("fe80::/64", 2)}, Failure, "no interface"},
	} {
		t.Run(name, func(t *testing.T) {
			o := machine(t, nil)
			o.Used = tc.used
			found := networkFindings(o, names, tc.routes)
			switch {
			case tc.found == "" && len(found) > 0:
				t.Errorf("found %+v", found)
			case tc.found != "" && (len(found) == 0 || found[0].Level != tc.level || !strings.Contains(found[0].Found, tc.found) || found[0].Fix == ""):
				t.Errorf("found %+v, want %s", found, tc.found)
			}
		})
	}
}

func TestDroppingChains(t *testing.T) {
	const text = `table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
}
table inet own {
	chain forward {
		type filter hook forward priority filter; policy accept;
	}
}
`
	got := parseDropping(text)
	if len(got) != 1 || got[0] != "the chain FORWARD of the nftables table ip filter" {
		t.Errorf("got %q", got)
	}
}

// TestApart tries on every thread that there is, the main one too, whose namespaces are what
// /proc/self shows.
func TestApart(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, for namespaces")
	}
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		var inside string
		err := apart(func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		})
		if err != nil || inside == home {
			t.Fatalf("tried in %s, %v", inside, err)
		}
		if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != home {
			t.Fatalf("the process is in %s, %v; was in %s", now, err, home)
		}
	}
}

// TestRunHere makes all checks on the machine of the test, and looks whether they left
// something: a port that this process has must be found.
func TestRunHere(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().(*net.TCPAddr).AddrPort()
	dir := t.TempDir()
	before := links(t)
	r := Run(t.Context(), Options{
		DataDir: filepath.Join(dir, "not", "there"), Backend: "vxlan",
		PodRanges: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")},
		Ports:     []Port{{Who: "the test", Protocol: "TCP", Address: address.Addr(), Number: address.Port()}},
	})
	subjects := map[string]bool{}
	for _, f := range r.Findings {
		subjects[f.Check] = true
		if (f.Level == Failure || f.Level == Warning) && f.Fix == "" || f.Found == "" {
			t.Errorf("%+v says not what is wrong, or not what to do", f)
		}
		t.Logf("%-8s %s: %s", f.Level, f.Check, f.Found)
	}
	for _, c := range checks {
		if !subjects[c.name] {
			t.Errorf("nothing is said of %s", c.name)
		}
	}
	if r.Runs || !strings.Contains(text(r, "ports"), "(pid "+strconv.Itoa(os.Getpid())+")") {
		t.Errorf("the taken port is not told: %s", text(r, "ports"))
	}
	if after := links(t); after != before {
		t.Errorf("interfaces were %s, and are %s", before, after)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left in %s: %v, %v", dir, entries, err)
	}
	// The same port, when it is the node's own.
	own := Run(t.Context(), Options{DataDir: dir, Server: os.Getpid(), Ports: []Port{{Who: "the test", Protocol: "TCP", Number: address.Port()}}})
	if !strings.Contains(text(own, "ports"), "nobody but this node") {
		t.Errorf("of its own port it says %s", text(own, "ports"))
	}
}

func text(r Report, check string) string {
	var all []string
	for _, f := range r.Findings {
		if f.Check == check {
			all = append(all, f.Found)
		}
	}
	return strings.Join(all, "; ")
}

func links(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return strings.Join(names, " ")
}
