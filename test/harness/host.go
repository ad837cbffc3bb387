package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is one test host: a fresh machine, as far as k3m can tell.
type Host struct {
	// Name is the host's name; Addr and Addr6 its addresses on the switch.
	Name        string
	Addr, Addr6 netip.Addr
	// NodeIPs are those of the addresses that its nodes are given; Addr alone when it is empty.
	NodeIPs []netip.Addr
	// Dir holds the host's files, DataDir, RunDir, ConfigFile and Kubeconfig are the
	// paths that its nodes use. They are the same inside and outside of the host.
	Dir, DataDir, RunDir, ConfigFile, Kubeconfig string

	// Env is added to the environment of nodes that are started.
	Env []string

	tb       TB
	lab      *Lab
	init     *exec.Cmd
	lifeline *os.File
	port     string
	net      netns.NsHandle
	links    *netlink.Handle
	baseline Snapshot
	starts   int
}

// NewHost makes a host, which is closed when the test ends. The data directory does not
// exist yet.
func (l *Lab) NewHost(tb TB, name string) *Host {
	tb.Helper()
	l.mu.Lock()
	l.hosts++
	number := l.hosts
	l.mu.Unlock()
	h := &Host{Name: name, tb: tb, lab: l, port: fmt.Sprintf("host%d", number)}
	h.Addr = netip.AddrFrom4([4]byte{198, 18, 0, byte(10 + number)})
	h.Addr6 = netip.MustParseAddr(fmt.Sprintf("fd42:198:18::%x", 10+number))
	h.Dir = filepath.Join(l.Dir, fmt.Sprintf("%d", number))
	h.DataDir = filepath.Join(h.Dir, "data")
	h.RunDir = filepath.Join(h.Dir, "run")
	h.ConfigFile = filepath.Join(h.Dir, "config.yaml")
	h.Kubeconfig = filepath.Join(h.Dir, "k3m.yaml")
	tb.Cleanup(h.close)
	if err := h.boot(); err != nil {
		tb.Fatalf("make test host %s: %v", name, err)
	}
	return h
}

func (h *Host) boot() error {
	layers := filepath.Join(h.Dir, "layers")
	if err := os.MkdirAll(layers, 0o755); err != nil {
		return err
	}
	// An empty one: a node of a test is not to read the machine's own.
	if err := os.WriteFile(h.ConfigFile, nil, 0o644); err != nil {
		return err
	}
	if err := h.lab.keeper.keep("cgroup", h.Cgroup()); err != nil {
		return err
	}
	cfg, err := json.Marshal(initConfig{Hostname: h.Name, Layers: layers, Addr: h.Addr.String()})
	if err != nil {
		return err
	}
	alive, lifeline, err := os.Pipe()
	if err != nil {
		return err
	}
	defer alive.Close()
	h.lifeline = lifeline
	report, reporting, err := os.Pipe()
	if err != nil {
		return err
	}
	defer report.Close()

	h.init = exec.CommandContext(context.Background(), "/proc/self/exe", string(cfg)) // it ends with its lifeline
	h.init.Args[0] = initRole
	h.init.ExtraFiles = []*os.File{alive, reporting} // lifelineFD, reportFD
	h.init.Stderr = os.Stderr
	h.init.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
	}
	err = h.init.Start()
	reporting.Close()
	if err != nil {
		return err
	}
	if err := h.lab.keeper.keep("pid", strconv.Itoa(h.init.Process.Pid)); err != nil {
		return err
	}
	if said, err := io.ReadAll(report); err != nil || string(said) != "ok" {
		return fmt.Errorf("its first process: %s", said)
	}
	if h.net, err = netns.GetFromPath(h.proc("ns/net")); err != nil {
		return err
	}
	if h.links, err = netlink.NewHandleAt(h.net); err != nil {
		return err
	}
	if err := h.lab.Switch.plug(h.net, h.port, h.Addr, h.Addr6); err != nil {
		return fmt.Errorf("plug it into the switch: %w", err)
	}
	h.baseline, err = h.Snapshot()
	return err
}

// proc is a path below the first process's /proc entry.
func (h *Host) proc(path string) string {
	return filepath.Join("/proc", strconv.Itoa(h.init.Process.Pid), path)
}

// Path is where a file of the host (in /etc, /var, /run, …) is seen from outside.
func (h *Host) Path(inside string) string { return filepath.Join(h.proc("root"), inside) }

// Layer is the folder that holds what was written to /etc, /opt, /var and /root.
func (h *Host) Layer() string { return h.Path(filepath.Join(h.Dir, "layers", "upper")) }

// close uninstalls k3m when it was started, compares the host with what it was before,
// and ends it.
func (h *Host) close() {
	if h.init == nil || h.init.Process == nil {
		return
	}
	if h.tb.Failed() {
		h.saveArtifacts()
	}
	if _, err := os.Stat(h.DataDir); err == nil && h.starts > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		out, err := h.K3m(ctx, "uninstall", "--yes").CombinedOutput()
		cancel()
		if err != nil {
			h.tb.Errorf("k3m uninstall --yes: %v: %s", err, out)
		} else if left := h.Leftovers(); len(left) > 0 {
			h.tb.Errorf("left over after k3m uninstall --yes:\n%s", lines(left))
		}
	}
	h.lifeline.Close()
	_ = h.init.Process.Kill() // it may have ended with its lifeline
	_ = h.init.Wait()
	if h.links != nil {
		h.links.Close()
	}
	_ = h.net.Close()
	h.lab.Switch.unplug(h.port)
	// The kernel has killed what ran in the host; what is left of its cgroups is empty.
	if err := removeCgroup(h.Cgroup(), 10*time.Second); err != nil {
		h.tb.Errorf("close test host %s: %v", h.Name, err)
	}
	if err := os.RemoveAll(h.Dir); err != nil {
		h.tb.Errorf("close test host %s: %v", h.Name, err)
	}
	h.init = nil
}

// Dial connects from inside the host. addr holds an IP address.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return dialIn(ctx, h.net, network, addr)
}

// HTTP is a client whose requests start in the host; each uses a connection of its own.
func (h *Host) HTTP() *http.Client { return client(h.Dial) }

// HTTP is a client whose requests start outside of all nodes.
func (s *Switch) HTTP() *http.Client { return client(s.Dial) }

func client(dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	return &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}
}

// Get fetches a URL with a client and gives back the body of a 200.
func Get(ctx context.Context, c *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}

// Transport makes each of its connections, whatever name the URL has, to one address, at the
// URL's port: names of a test are nobody's to resolve. The connections start in the host.
func (h *Host) Transport(to netip.Addr) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return h.Dial(ctx, network, net.JoinHostPort(to.String(), port))
	}}
}
