package components

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/k3m-io/k3m/sdk"
	"golang.org/x/sys/unix"
)

// status reads /proc/<pid>/status.
func procStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

func mask(numbers ...int) string {
	var m uint64
	for _, n := range numbers {
		m |= 1 << n
	}
	return fmt.Sprintf("%016x", m)
}

func TestPrivileges(t *testing.T) {
	needRoot(t)
	tests := map[string]struct {
		info                sdk.Info
		user                string // "": one of the range
		permitted, ambient  string
		bounding, effective string
		noNewPrivs          string
	}{
		"none": {
			info:      sdk.Info{Kind: "addon", Name: "none"},
			permitted: mask(), effective: mask(), ambient: mask(), bounding: mask(), noNewPrivs: "1",
		},
		"one capability": {
			info:      sdk.Info{Kind: "cni", Name: "net", Privileges: sdk.Privileges{Capabilities: []string{"CAP_NET_ADMIN"}}},
			permitted: mask(unix.CAP_NET_ADMIN), effective: mask(unix.CAP_NET_ADMIN), ambient: mask(unix.CAP_NET_ADMIN),
			bounding: mask(unix.CAP_NET_ADMIN), noNewPrivs: "1",
		},
		"root without capabilities": {
			info: sdk.Info{Kind: "addon", Name: "root", Privileges: sdk.Privileges{Root: true}}, user: "0 0 0 0",
			permitted: mask(), effective: mask(), ambient: mask(), bounding: mask(), noNewPrivs: "1",
		},
		"root with one capability": {
			info: sdk.Info{Kind: "addon", Name: "root", Privileges: sdk.Privileges{Root: true, Capabilities: []string{"CAP_CHOWN"}}}, user: "0 0 0 0",
			permitted: mask(unix.CAP_CHOWN), effective: mask(unix.CAP_CHOWN), ambient: mask(unix.CAP_CHOWN),
			bounding: mask(unix.CAP_CHOWN), noNewPrivs: "1",
		},
		"runtime": {
			info: sdk.Info{Kind: "runtime", Name: "all"}, user: "0 0 0 0",
			permitted: "own", effective: "own", ambient: mask(), bounding: "own", noNewPrivs: "0",
		},
	}
	own := procStatus(t, os.Getpid())
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			id := n.witness(want.info).ID()
			s := n.run()
			st := untilState(t, s, id, Ready)
			got := procStatus(t, st.PID)
			user := want.user
			if user == "" {
				uid := st.UID
				if uid < firstUID || uid >= firstUID+countUID {
					t.Errorf("user id %d is not of the range", uid)
				}
				user = strings.TrimSpace(strings.Repeat(strconv.Itoa(uid)+" ", 4))
			}
			for field, value := range map[string]string{
				"Uid": user, "Gid": user, "NoNewPrivs": want.noNewPrivs,
				"CapPrm": want.permitted, "CapEff": want.effective, "CapAmb": want.ambient, "CapBnd": want.bounding,
			} {
				if value == "own" {
					value = own[field]
				}
				if got[field] != value {
					t.Errorf("%s is %q, want %q", field, got[field], value)
				}
			}
			if want.info.Kind != "runtime" && got["Groups"] != "" {
				t.Errorf("supplementary groups %q", got["Groups"])
			}
		})
	}
}

func TestPluginSeesNothingOfTheCore(t *testing.T) {
	t.Setenv("K3M_TOKEN", "a secret")
	n := newNode(t)
	n.witness(sdk.Info{Kind: "addon", Name: "witness"})
	s := n.run(func(o *Options) {
		o.Config = map[string]json.RawMessage{"addon.witness": json.RawMessage(`{"a":1}`)}
	})
	st := untilState(t, s, "addon.witness", Ready)

	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", st.PID))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for v := range strings.SplitSeq(strings.Trim(string(environ), "\x00"), "\x00") {
		name, _, ok := strings.Cut(v, "=")
		if ok && !strings.ContainsAny(name, "/+ ") { // a certificate has lines
			names = append(names, name)
		}
	}
	slices.Sort(names)
	allowed := []string{"HOME", "K3M_LIFELINE_FD", "K3M_LOG_LEVEL", "K3M_PLUGIN", "PATH", "PLUGIN_CLIENT_CERT",
		"PLUGIN_MAX_PORT", "PLUGIN_MIN_PORT", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR"}
	if !slices.Equal(names, allowed) {
		t.Errorf("environment %v, want %v", names, allowed)
	}

	var given struct{ Config json.RawMessage }
	data, err := os.ReadFile(filepath.Join(n.dataDir, "components/addon.witness/state/given.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &given); err != nil || string(given.Config) != `{"a":1}` {
		t.Errorf("config %s, %v", given.Config, err)
	}

	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", st.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", st.PID, fd.Name()))
		// The Go runtime itself watches its cgroup's CPU limit.
		if strings.HasPrefix(target, "/") && target != "/dev/null" && !strings.HasPrefix(target, "/sys/fs/cgroup/cpu") {
			t.Errorf("descriptor %s is %s", fd.Name(), target)
		}
	}
}

func TestDirectoriesAreTheComponentsOwn(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	n.witness(sdk.Info{Kind: "addon", Name: "witness"})
	s := n.run()
	st := untilState(t, s, "addon.witness", Ready)
	for dir, want := range map[string]struct {
		mode os.FileMode
		uid  int
	}{
		n.dataDir + "/components":                     {0o711, 0},
		n.dataDir + "/components/addon.witness":       {0o711, 0},
		n.dataDir + "/components/addon.witness/state": {0o700, st.UID},
		n.runDir + "/components":                      {0o711, 0},
		n.runDir + "/components/addon.witness":        {0o700, st.UID},
	} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if owner := int(info.Sys().(*syscall.Stat_t).Uid); info.Mode().Perm() != want.mode || owner != want.uid {
			t.Errorf("%s: mode %o of user %d, want %o of %d", dir, info.Mode().Perm(), owner, want.mode, want.uid)
		}
	}
	written, err := os.Stat(n.dataDir + "/components/addon.witness/state/given.json")
	if err != nil {
		t.Fatal(err)
	}
	if written.Mode().Perm() != 0o600 {
		t.Errorf("umask let the component make a file of mode %o", written.Mode().Perm())
	}
}

func TestCgroupLimits(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	n.witness(sdk.Info{Kind: "addon", Name: "small", Limits: sdk.Limits{MemoryBytes: 200 << 20, CPUMilli: 500}})
	s := n.run()
	st := untilState(t, s, "addon.small", Ready)
	g, err := groupOf(n.cgroup, "addon.small")
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Procs(); err != nil || !slices.Equal(pids, []int{st.PID}) {
		t.Errorf("processes %v, %v; want %d", pids, err, st.PID)
	}
	found := 0
	for _, dir := range g {
		for file, want := range map[string]string{
			"memory.limit_in_bytes": "209715200", "memory.max": "209715200", // versions 1 and 2
			"cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000",
			"pids.max": "1024",
		} {
			if data, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				found++
				if got := strings.TrimSpace(string(data)); got != want {
					t.Errorf("%s/%s is %q, want %q", dir, file, got, want)
				}
			}
		}
	}
	if found < 3 {
		t.Errorf("found %d limits in %v", found, g)
	}
}

// A fork bomb stops at its own limit; a runtime has as many processes as the host lets it.
func TestProcessLimit(t *testing.T) {
	for kind, want := range map[string]int64{"addon": maxProcesses, "ingress": maxProcesses, "runtime": 0} {
		if got := processLimit(sdk.Info{Kind: kind}); got != want {
			t.Errorf("%s: %d, want %d", kind, got, want)
		}
	}
}

// Those that are required stop last.
func TestStopOrder(t *testing.T) {
	n := newNode(t)
	n.witness(sdk.Info{Kind: "runtime", Name: "r"})
	n.witness(sdk.Info{Kind: "cni", Name: "c", Requires: []sdk.Requirement{"runtime"}})
	n.witness(sdk.Info{Kind: "dns", Name: "d", Requires: []sdk.Requirement{"cni"}})
	t.Run("run", func(t *testing.T) {
		n.t = t
		s := n.run()
		for _, id := range []string{"runtime.r", "cni.c", "dns.d"} {
			untilState(t, s, id, Ready)
		}
	})
	log := n.log.String()
	last := -1
	for _, id := range []string{"dns.d", "cni.c", "runtime.r"} {
		at := strings.Index(log, id+": stops")
		if at < last || at < 0 {
			t.Errorf("%s stopped out of order:\n%s", id, log)
		}
		last = at
	}
}
