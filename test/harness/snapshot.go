package harness

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Snapshot is what can be left over on a host, as sorted lines of "what: which".
type Snapshot []string

// Cgroup is the name of the cgroup that a node with this host's data directory makes.
func (h *Host) Cgroup() string {
	sum := sha256.Sum256([]byte(h.DataDir))
	return "k3m" + hex.EncodeToString(sum[:4])
}

// Snapshot lists processes (but for the host's first), mounts, interfaces, routes and the
// rules that choose among their tables, packet-filter rules, cgroups, and files outside of the node's directories.
func (h *Host) Snapshot() (Snapshot, error) {
	var s Snapshot
	add := func(what string, which ...string) {
		for _, w := range which {
			s = append(s, what+": "+w)
		}
	}
	procs, err := h.Processes()
	if err != nil {
		return nil, err
	}
	for _, p := range procs {
		add("process", fmt.Sprintf("%d %s", p.Pid, p.Cmdline))
	}
	mounts, err := h.Mounts()
	if err != nil {
		return nil, err
	}
	add("mount", mounts...)
	links, err := h.links.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		add("interface", l.Attrs().Name)
	}
	routes, err := h.links.RouteList(nil, 0)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() { // the kernel's own, some time after a link is up
			continue
		}
		add("route", r.String())
	}
	policies, err := h.links.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	for _, r := range policies {
		add("routing rule", r.String())
	}
	add("packet filter", h.rules()...)
	add("network namespace", names(h.Path("/run/netns"))...)
	for _, dir := range cgroupDirs(h.Cgroup()) {
		add("cgroup", dir)
	}
	add("file", h.files()...)
	sort.Strings(s)
	return s, nil
}

// Minus gives the lines that are in s but not in other.
func (s Snapshot) Minus(other Snapshot) Snapshot {
	var diff Snapshot
	for _, line := range s {
		if !slices.Contains(other, line) {
			diff = append(diff, line)
		}
	}
	return diff
}

// Changes is what is on the host now and was not there when it was made.
func (h *Host) Changes() (Snapshot, error) {
	now, err := h.Snapshot()
	return now.Minus(h.baseline), err
}

// Leftovers is what is on the host now and was not there before k3m was started. The
// kernel takes a moment to let go of interfaces and cgroups, so it looks again for some
// seconds as long as there is something.
func (h *Host) Leftovers() Snapshot {
	deadline := time.Now().Add(5 * time.Second)
	for {
		left, err := h.Changes()
		if err != nil {
			return Snapshot{err.Error()}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Process is a process of a host.
type Process struct {
	// Pid is the process ID inside the host, Outer outside of it.
	Pid, Outer int
	Cmdline    string
}

// Processes are all processes of the host but its first, those in containers included.
func (h *Host) Processes() ([]Process, error) {
	// The host's /proc lists its PID namespace and those below; the test process's own
	// lists them under the other number, and NSpid holds both.
	home, err := os.Readlink(h.proc("ns/pid"))
	if err != nil {
		return nil, err
	}
	var procs []Process
	for _, name := range names(h.Path("/proc")) {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == 1 {
			continue
		}
		cmdline, err := os.ReadFile(h.Path("/proc/" + name + "/cmdline"))
		if err != nil {
			continue // it has gone since
		}
		procs = append(procs, Process{Pid: pid, Cmdline: strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))})
	}
	outer := outerPids(home)
	for i := range procs {
		procs[i].Outer = outer[procs[i].Pid]
	}
	return procs, nil
}

// outerPids maps the process IDs of the processes whose own PID namespace is home to
// this process's view of them.
func outerPids(home string) map[int]int {
	pids := map[int]int{}
	for _, name := range names("/proc") {
		outer, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if ns, err := os.Readlink("/proc/" + name + "/ns/pid"); err != nil || ns != home {
			continue
		}
		status, err := os.ReadFile("/proc/" + name + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
				if f := strings.Fields(rest); len(f) > 1 {
					inner, _ := strconv.Atoi(f[len(f)-1])
					pids[inner] = outer
				}
			}
		}
	}
	return pids
}

// Kill sends a signal to a process of the host.
func (h *Host) Kill(pid int, signal unix.Signal) error {
	procs, err := h.Processes()
	if err != nil {
		return err
	}
	for _, p := range procs {
		if p.Pid == pid && p.Outer != 0 {
			return unix.Kill(p.Outer, signal)
		}
	}
	return fmt.Errorf("kill process %d of test host %s: no such process", pid, h.Name)
}

// Mounts are the mount points in the host's own mount namespace.
func (h *Host) Mounts() ([]string, error) {
	f, err := os.Open(h.proc("mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var points []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if fields := strings.Fields(sc.Text()); len(fields) > 4 {
			points = append(points, fields[4])
		}
	}
	return points, nil
}

// rules are the host's nftables and legacy iptables rules. An empty table or chain
// counts: somebody made it.
func (h *Host) rules() []string {
	var rules []string
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, argv := range [][]string{
		{"/usr/sbin/nft", "-s", "list", "ruleset"},
		{"/usr/sbin/iptables-legacy-save"},
		{"/usr/sbin/ip6tables-legacy-save"},
	} {
		if _, err := os.Stat(argv[0]); err != nil {
			continue
		}
		out, _ := h.Command(ctx, argv[0], argv[1:]...).Output()
		for line := range strings.Lines(out) {
			line = strings.TrimSpace(line)
			// Legacy tables exist from the first look on, with their empty chains.
			if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ":") && strings.Contains(line, "ACCEPT [") ||
				argv[0] != "/usr/sbin/nft" && (strings.HasPrefix(line, "*") || line == "COMMIT") {
				continue
			}
			rules = append(rules, line)
		}
	}
	return rules
}

// files are the files that were written to the host's layers, to /run, and to the
// node's own paths. A folder that the machine has too says nothing: it is copied into
// the layer when a file in it comes and goes. /run/mount belongs to mount(8).
func (h *Host) files() []string {
	var files []string
	walk := func(top string, name func(string) string, deep bool) {
		Walk(top, func(path string, e fs.DirEntry) error {
			if path == top && deep {
				return nil
			}
			if e.Type()&fs.ModeCharDevice != 0 && whiteout(e) {
				return nil
			}
			inside := name(path)
			if deep && e.IsDir() && (inside == "/run/mount" || onMachine(inside)) {
				return nil
			}
			files = append(files, inside)
			if e.IsDir() && !deep {
				return fs.SkipDir
			}
			return nil
		})
	}
	walk(h.Layer(), func(path string) string { return strings.TrimPrefix(path, h.Layer()) }, true)
	walk(h.Path("/run"), func(path string) string { return strings.TrimPrefix(path, h.proc("root")) }, true)
	for _, top := range []string{h.DataDir, h.RunDir, h.Kubeconfig} {
		walk(top, func(path string) string { return path }, false)
	}
	return files
}

// Walk visits what is below a folder, as filepath.WalkDir does. What can't be read, most
// often since it has gone meanwhile, is left out; a folder for which visit gives an error
// is not entered.
func Walk(top string, visit func(path string, e fs.DirEntry) error) {
	_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			err = visit(path, e)
		}
		if err != nil && e != nil && e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// onMachine tells whether a host had a folder from the beginning, since the machine has.
func onMachine(dir string) bool {
	for _, c := range cleared {
		if dir == c || strings.HasPrefix(dir, c+"/") {
			return false
		}
	}
	st, err := os.Stat(dir)
	return err == nil && st.IsDir()
}

// whiteout tells whether a layer's entry stands for the removal of something that the
// machine has.
func whiteout(e fs.DirEntry) bool {
	info, err := e.Info()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Rdev == 0
}

func names(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func lines(s []string) string { return strings.Join(s, "\n") }

// Rebase makes what is on the host now what Leftovers and Changes compare with.
func (h *Host) Rebase(tb TB) {
	tb.Helper()
	var err error
	if h.baseline, err = h.Snapshot(); err != nil {
		tb.Fatalf("%v", err)
	}
}
