package hostcheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// apart runs try on a thread with network and mount namespaces of its own, which end with
// it, and everything that was made in them.
func apart(try func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread does not end before the process, and is what /proc/self shows.
			// While this goroutine holds it, another one gets another.
			done <- apart(try)
			runtime.UnlockOSThread()
			return
		}
		// Never unlocked: the thread is no good for anybody else, and ends with the goroutine.
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			done <- fmt.Errorf("make namespaces: %w", err)
			return
		}
		// Mounts made here are not to show up outside.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			done <- fmt.Errorf("make mounts private: %w", err)
			return
		}
		done <- try()
	}()
	return <-done
}

// mayTry tells whether what has to be tried can be.
func mayTry(o *Options) bool {
	held, known := o.capabilities()
	return os.Geteuid() == 0 && (!known || held&(1<<unix.CAP_SYS_ADMIN) != 0 && held&(1<<unix.CAP_NET_ADMIN) != 0)
}

const notTried = "not tried, as that needs root"

// device is a kind of network interface.
type device struct {
	kind, option, module string
	needed               Level
	why                  string
	link                 netlink.Link
}

func checkDevices(_ context.Context, o *Options) []Finding {
	if !mayTry(o) {
		return skipped(notTried)
	}
	attrs := func(name string) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name = name
		return a
	}
	devices := []device{
		{"bridge", "BRIDGE", "bridge", Failure, "pods have no network", &netlink.Bridge{LinkAttrs: attrs("k3mcheck0")}},
		{"veth", "VETH", "veth", Failure, "pods have no network", &netlink.Veth{LinkAttrs: attrs("k3mcheck1"), PeerName: "k3mcheck2"}},
	}
	switch o.Backend {
	case "":
		devices = nil // another network's business
	case "vxlan":
		devices = append(devices, device{"vxlan", "VXLAN", "vxlan", Failure, "cni.flannel can't make its network; --flannel-backend=host-gw needs none",
			&netlink.Vxlan{LinkAttrs: attrs("k3mcheck3"), VxlanId: 1, Port: 8472}})
	case "wireguard":
		devices = append(devices, device{"wireguard", "WIREGUARD", "wireguard", Failure, "--flannel-backend=wireguard needs it", &netlink.Wireguard{LinkAttrs: attrs("k3mcheck3")}})
	}
	var kinds []string
	var found []Finding
	err := apart(func() error {
		for _, d := range devices {
			if err := netlink.LinkAdd(d.link); err != nil {
				found = append(found, Finding{Level: d.needed, Found: fmt.Sprintf("the kernel makes no %s interface (%v): %s", d.kind, err, d.why), Fix: o.mendKernel(d.option, d.module)})
				continue
			}
			kinds = append(kinds, d.kind)
		}
		return nil
	})
	if err != nil {
		return skipped(err.Error())
	}
	if len(devices) == 0 {
		return ok("left to the network that you bring")
	}
	return orOK(found, "the kernel makes "+list(kinds)+" interfaces")
}

// nftTry are rules of the kinds that kube-proxy and the network policies are made of.
const nftTry = `
table inet k3m-check {
	map services { type ipv4_addr . inet_proto . inet_service : verdict; }
	set pods { type ipv4_addr; flags interval; auto-merge; }
	chain service { counter return; }
	chain nat {
		type nat hook postrouting priority srcnat;
		ip daddr . meta l4proto . th dport vmap @services
		ct state new masquerade fully-random
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		ip saddr @pods drop
	}
}
`

// tryLimit bounds a try of a program.
const tryLimit = 10 * time.Second

func checkPacketFilter(ctx context.Context, o *Options) []Finding {
	haveNFT, haveIPTables := o.anywhere("nft"), o.anywhere("iptables")
	if !haveNFT && !haveIPTables {
		return []Finding{failure("neither nft nor iptables is installed: Services can't work", "install nftables (apt install nftables, dnf install nftables, apk add nftables)")}
	}
	if !mayTry(o) {
		return skipped(notTried)
	}
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	var nft, iptables error
	err := apart(func() error {
		// The programs are started from this thread, so that they are in its namespaces.
		nft = try(ctx, strings.NewReader(nftTry), "nft", "-f", "-")
		iptables = try(ctx, nil, "iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-m", "comment", "--comment", "k3m-check",
			"-m", "conntrack", "--ctstate", "NEW", "-j", "MASQUERADE")
		return nil
	})
	if err != nil {
		return skipped(err.Error())
	}
	version, known := parseRelease(o.release())
	tooOld := known && older(version, oldestNFTKernel)
	switch {
	case nft == nil && !tooOld:
		return ok("nftables works")
	case iptables == nil && tooOld:
		return ok("iptables works; the kernel is too old for nftables")
	case iptables == nil:
		return []Finding{warning("nftables can't be used ("+nft.Error()+"): Services use iptables, and network policies are not enforced",
			"install nftables (apt install nftables); "+o.mendKernel("NF_TABLES", "nf_tables"))}
	case nft == nil:
		nft = errors.New("the kernel is too old for it")
	}
	return []Finding{failure(fmt.Sprintf("neither nftables (%v) nor iptables (%v) works: Services can't work", nft, iptables), o.mendKernel("NF_TABLES", "nf_tables"))}
}

// try runs a program and gives the first line that it complains with.
func try(ctx context.Context, in *strings.Reader, name string, args ...string) error {
	program, err := lookPath(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	if in != nil {
		cmd.Stdin = in
	}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s did not end within %s", name, tryLimit)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%s: %s", name, line)
}

// lookPath finds a program, also where the PATH of sudo does not lead.
func lookPath(name string) (string, error) {
	program, err := exec.LookPath(name)
	for i := 0; err != nil && i < len(programDirs); i++ {
		program, err = exec.LookPath("/" + programDirs[i] + "/" + name)
	}
	if err != nil {
		return "", errors.New(name + " is not installed")
	}
	return program, nil
}

// output is what a program writes.
func output(ctx context.Context, name string, args ...string) (string, error) {
	program, err := lookPath(name)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, program, args...).Output()
	return string(out), err
}

func checkOverlay(_ context.Context, o *Options) []Finding {
	if !mayTry(o) {
		return skipped(notTried)
	}
	dir, err := os.MkdirTemp(existing(o.DataDir), ".k3m-check-")
	if err != nil {
		return skipped("nothing can be written next to " + o.DataDir + ": " + err.Error())
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return skipped(err.Error())
		}
	}
	var mounting error
	err = apart(func() error {
		options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
		merged := filepath.Join(dir, "merged")
		if mounting = unix.Mount("overlay", merged, "overlay", 0, options); mounting == nil {
			return unix.Unmount(merged, unix.MNT_DETACH)
		}
		return nil
	})
	switch {
	case err != nil:
		return skipped(err.Error())
	case mounting != nil:
		return []Finding{warning(fmt.Sprintf("overlayfs can't be used below %s (%v): each container gets a whole copy of its image", o.DataDir, mounting),
			"put --data-dir on ext4 or xfs (with ftype=1); "+o.mendKernel("OVERLAY_FS", "overlay"))}
	}
	return ok("works below " + o.DataDir)
}

// existing is the path, or the nearest folder above it that is there.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}
