package harness

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// victimRole is a test process that opens a lab with a busy host and waits to be killed.
const victimRole = "k3m-test-victim"

func TestMain(m *testing.M) {
	if os.Args[0] == victimRole {
		victim()
	}
	Roles()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the harness's tests make namespaces and need root")
		if os.Getenv("K3M_E2E") == "1" {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func newLab(t *testing.T) *Lab {
	t.Helper()
	l, err := open("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(l.Dir); err == nil {
			t.Errorf("%s is left", l.Dir)
		}
	})
	return l
}

func TestHostsAreMachinesOfTheirOwn(t *testing.T) {
	l := newLab(t)
	one, two := l.NewHost(t, "one"), l.NewHost(t, "two")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	for _, c := range []struct {
		name   string
		script string
		want   string
	}{
		{"name", "hostname", "one"},
		{"interfaces", "ls /sys/class/net", "eth0\nlo"},
		{"cgroups are there", "test -d /sys/fs/cgroup && ls /sys/fs/cgroup | wc -l | grep -qv '^0' && echo yes", "yes"},
		{"own processes", "ps -e -o comm= | grep -c '^k3m-test\\|^exe$' ", "1"},
		{"run is empty", "ls -A /run", ""},
		{"root is shared", "findmnt -no PROPAGATION /", "shared"},
		{"own etc", "echo x > /etc/of-the-host && cat /etc/of-the-host", "x"},
		{"no way out", "ip route get 203.0.113.1 | head -1 | cut -d' ' -f3", "198.18.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := one.Command(ctx, "/bin/sh", "-c", c.script).Output()
			if got := strings.TrimSpace(out); got != c.want {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
		})
	}
	if _, err := os.Stat("/etc/of-the-host"); err == nil {
		t.Error("a host wrote to the machine's /etc")
	}
	if _, err := os.Stat(filepath.Join(one.Layer(), "etc/of-the-host")); err != nil {
		t.Errorf("what a host wrote is not in its layer: %v", err)
	}
	if left := one.Leftovers(); !slices.Contains(left, "file: /etc/of-the-host") {
		t.Errorf("leftovers are %q", left)
	}

	t.Run("dial", func(t *testing.T) {
		ln, err := one.Listen("tcp", one.Addr.String()+":8080")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })}
		go func() { _ = srv.Serve(ln) }()
		defer func() { _ = srv.Close() }()
		for name, c := range map[string]*http.Client{"198.18.0.1:": l.Switch.HTTP(), two.Addr.String() + ":": two.HTTP(), one.Addr.String() + ":": one.HTTP()} {
			if body, err := Get(ctx, c, "http://"+one.Addr.String()+":8080/"); err != nil || !strings.HasPrefix(body, name) {
				t.Errorf("from %s: %q, %v", name, body, err)
			}
		}
		if _, err := Get(ctx, one.HTTP(), "http://203.0.113.1/"); err == nil {
			t.Error("a request left the test's namespaces")
		}
	})
}

func TestSnapshotSeesWhatIsLeft(t *testing.T) {
	h := newLab(t).NewHost(t, "one")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, c := range []struct{ name, script, want string }{
		{"process", "setsid sleep 300 >/dev/null 2>&1 &", "process: "},
		{"mount", "mkdir /run/m && mount -t tmpfs x /run/m", "mount: /run/m"},
		{"interface", "ip link add br9 type bridge", "interface: br9"},
		{"route", "ip route add 10.9.0.0/24 dev eth0", "route: "},
		{"nft", "nft add table inet leftover", "packet filter: table inet leftover {"},
		{"network namespace", "mkdir -p /run/netns && touch /run/netns/x", "network namespace: x"},
		{"cgroup", "for d in /sys/fs/cgroup/pids /sys/fs/cgroup; do mkdir -p $d/" + h.Cgroup() + "/x 2>/dev/null && break; done", "cgroup: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if out, err := h.Command(ctx, "/bin/sh", "-c", c.script).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			now, err := h.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			left := now.Minus(h.baseline)
			if !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, c.want) }) {
				t.Errorf("%q is not in %q", c.want, left)
			}
		})
	}
}

func TestKillReachesTheProcessOfTheHost(t *testing.T) {
	h := newLab(t).NewHost(t, "one")
	cmd := h.Command(t.Context(), "/bin/sh", "-c", "echo $$; exec sleep 300")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(line))
	if err := h.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("ended with %v", err)
	}
}

// TestNothingOutlivesAKilledTestProcess kills a test process that has a busy host.
func TestNothingOutlivesAKilledTestProcess(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args = []string{victimRole}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir, cgroup string
	var host, sleeper int
	if _, err := fmt.Fscan(out, &dir, &cgroup, &host, &sleeper); err != nil {
		t.Fatal(err)
	}
	if len(cgroupDirs(cgroup)) == 0 {
		t.Error("the victim made no cgroup")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	deadline := time.Now().Add(20 * time.Second)
	for {
		var left []string
		for _, pid := range []int{host, sleeper} {
			if unix.Kill(pid, 0) == nil {
				left = append(left, fmt.Sprint("process ", pid))
			}
		}
		if _, err := os.Stat(dir); err == nil {
			left = append(left, dir)
		}
		left = append(left, cgroupDirs(cgroup)...)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left over: %q", left)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func victim() {
	l, err := open("/bin/true")
	if err != nil {
		exit(err)
	}
	tb := &Bench{}
	h := l.NewHost(tb, "victim")
	cmd := h.Command(context.Background(), "/bin/sh", "-c",
		"for d in /sys/fs/cgroup/pids /sys/fs/cgroup; do mkdir -p $d/"+h.Cgroup()+"/x && echo $$ > $d/"+h.Cgroup()+"/x/cgroup.procs && break; done; mount -t tmpfs x "+h.Dir+"; exec setsid sleep 300")
	if err := cmd.Start(); err != nil {
		exit(err)
	}
	for len(cgroupDirs(h.Cgroup())) == 0 {
		time.Sleep(time.Millisecond)
	}
	fmt.Println(l.Dir, h.Cgroup(), h.init.Process.Pid, cmd.Process.Pid)
	time.Sleep(time.Hour)
}
