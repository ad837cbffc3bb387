package flannel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
)

// lan is the network between the test hosts: a bridge in the suite's namespace, which
// has the address .1 and stands for the rest of the world too.
type lan struct {
	t      *testing.T
	api    *nodesAPI
	bridge netlink.Link
}

const (
	lanPrefix4 = "192.168.77."
	lanPrefix6 = "fd77::"
)

func newLAN(t *testing.T) *lan {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "lan0"
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	must(t, netlink.LinkAdd(bridge))
	t.Cleanup(func() { must(t, netlink.LinkDel(bridge)) })
	addAddress(t, bridge, lanPrefix4+"1/24")
	addAddress(t, bridge, lanPrefix6+"1/64")
	must(t, netlink.LinkSetUp(bridge))
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	l := &lan{t: t, bridge: bridge}
	l.api = newNodesAPI(t, lanPrefix4+"1:0")
	return l
}

// host is a machine: a network namespace with eth0 in the LAN, and directories.
type host struct {
	t          *testing.T
	name       string
	dir        string
	namespace  string // path
	kubeconfig string
	facts      sdk.Facts
	config     string
}

// newHost makes host number n, 2 to 9, which has the addresses .n and the node "node-n".
func (l *lan) newHost(n int, filter sdk.PacketFilter, config string) *host {
	t := l.t
	t.Helper()
	h := &host{t: t, name: fmt.Sprintf("node-%d", n), dir: t.TempDir(), config: config}
	var release func()
	h.namespace, release = holdNamespace(t)
	t.Cleanup(release)

	ns, err := netns.GetFromPath(h.namespace)
	must(t, err)
	defer func() { _ = ns.Close() }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("lan0-%d", n)
	attrs.MasterIndex = l.bridge.Attrs().Index
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}))
	port, err := netlink.LinkByName(attrs.Name)
	must(t, err)
	t.Cleanup(func() { must(t, netlink.LinkDel(port)) })
	must(t, netlink.LinkSetUp(port))
	h.do(func() {
		for _, name := range []string{"lo", "eth0"} {
			link, err := netlink.LinkByName(name)
			must(t, err)
			must(t, netlink.LinkSetUp(link))
			if name == "eth0" {
				addAddress(t, link, fmt.Sprintf("%s%d/24", lanPrefix4, n))
				addAddress(t, link, fmt.Sprintf("%s%d/64", lanPrefix6, n))
				must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(lanPrefix4 + "1")}))
			}
		}
	})

	h.kubeconfig = filepath.Join(h.dir, "kubeconfig")
	must(t, os.WriteFile(h.kubeconfig, []byte(l.api.kubeconfig()), 0o600))
	h.facts = sdk.Facts{
		NodeName:     h.name,
		NodeIPs:      []netip.Addr{netip.MustParseAddr(fmt.Sprintf("%s%d", lanPrefix4, n))},
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")},
		PacketFilter: filter,
		Paths: sdk.Paths{
			CarriedCNIDir: carriedExecutables(t),
			CNIBinDir:     filepath.Join(h.dir, "agent/cni/bin"),
			CNIConfDir:    filepath.Join(h.dir, "agent/etc/cni/net.d"),
			AgentDir:      filepath.Join(h.dir, "agent"),
		},
	}
	must(t, os.MkdirAll(h.stateDir(), 0o700))
	return h
}

// holdNamespace makes a network namespace and a process that keeps it, and returns its
// path and what ends it. (The process ends with this one too, by the pipe; the signal at
// the parent's death comes at the death of a thread already.)
func holdNamespace(t *testing.T) (path string, release func()) {
	t.Helper()
	holder := exec.CommandContext(context.Background(), "/proc/self/exe") // needed by the test's cleanups too
	holder.Env = []string{roleVariable + "=hold"}
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	pipe, err := holder.StdinPipe()
	must(t, err)
	must(t, holder.Start())
	return fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid), func() {
		_ = pipe.Close()
		_ = holder.Wait()
	}
}

// dualStack gives the host an IPv6 address and the cluster an IPv6 range.
func (h *host) dualStack() {
	h.facts.NodeIPs = append(h.facts.NodeIPs, netip.MustParseAddr(lanPrefix6+strings.TrimPrefix(h.name, "node-")))
	h.facts.ClusterCIDRs = append(h.facts.ClusterCIDRs, netip.MustParsePrefix("fd42::/56"))
}

func (h *host) stateDir() string { return filepath.Join(h.dir, "components/cni.flannel") }

// do runs f on a thread that is inside the host's network namespace.
func (h *host) do(f func()) { inNamespace(h.t, h.namespace, f) }

// inNamespace runs f on a thread inside the network namespace of path; "" is the suite's
// own.
func inNamespace(t *testing.T, path string, f func()) {
	t.Helper()
	if path == "" {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromPath(path)
		if err == nil {
			err = netns.Set(ns)
			_ = ns.Close()
		}
		if err != nil {
			t.Errorf("enter %s: %v", path, err)
			return
		}
		f()
	}()
	<-done
}

// command is a command in the host's network namespace.
func (h *host) command(name string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), "nsenter", append([]string{"--net=" + h.namespace, name}, args...)...)
}

// output runs a command in the host's network namespace.
func (h *host) output(name string, args ...string) string {
	h.t.Helper()
	out, err := h.command(name, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %s %s: %v\n%s", h.name, name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// component is a process of the component on a host.
type component struct {
	*client.Client
	process  *goplugin.Client
	pid      int
	reports  chan client.Report
	ended    chan struct{}
	err      error // of Run; after ended
	started  time.Time
	lifeline io.Closer
	log      *lockedBuffer
}

// start starts the component's process as k3m does: root with two capabilities,
// no_new_privs, an empty environment.
func (h *host) start() *component {
	t := h.t
	t.Helper()
	sockets, err := os.MkdirTemp("", "k3m")
	must(t, err)
	lifeline, hold, err := os.Pipe()
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	const capabilities = "-all,+net_admin,+net_raw"
	cmd := h.command("setpriv", "--no-new-privs", "--bounding-set="+capabilities, "--inh-caps="+capabilities, self, "cni.flannel")
	cmd.Env = []string{client.EnvLifeline + "=3", client.EnvLogLevel + "=debug",
		goplugin.EnvUnixSocketDir + "=" + sockets}
	cmd.ExtraFiles = []*os.File{lifeline}
	cmd.Dir = "/"
	c := &component{reports: make(chan client.Report, 16), ended: make(chan struct{}), lifeline: hold, log: &lockedBuffer{}}
	config := &goplugin.ClientConfig{Cmd: cmd, Logger: hclog.NewNullLogger(), Stderr: c.log, StartTimeout: 30 * time.Second}
	client.Configure(config)
	c.process = goplugin.NewClient(config)
	t.Cleanup(func() {
		hold.Close()
		c.process.Kill()
		os.RemoveAll(sockets)
		if t.Failed() {
			t.Logf("log of %s's component:\n%s", h.name, c.log)
		}
	})
	c.Client, err = client.Connect(c.process, sockets)
	lifeline.Close()
	if err != nil {
		t.Fatalf("start the component: %v\n%s", err, c.log)
	}
	c.pid = cmd.Process.Pid
	return c
}

// run starts the component's process and its Run.
func (h *host) run() *component {
	h.t.Helper()
	c := h.start()
	c.started = time.Now()
	go func() {
		defer close(c.ended)
		c.err = c.Run(context.Background(), client.RunRequest{
			Facts: h.facts, Kubeconfig: h.kubeconfig, Config: json.RawMessage(h.config), StateDir: h.stateDir(),
		}, func(r client.Report) { c.reports <- r })
	}()
	return c
}

// up runs the component and waits until it is ready.
func (h *host) up() *component {
	h.t.Helper()
	c := h.run()
	c.awaitReady(h.t)
	return c
}

// awaitReady returns the gateways that were reported.
func (c *component) awaitReady(t *testing.T) (gateways []netip.Addr) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case r := <-c.reports:
			switch r := r.(type) {
			case client.NetworkReady:
				gateways = r.Gateways
				t.Logf("network ready %s after Run was called", time.Since(c.started).Round(time.Millisecond))
			case client.Ready:
				return gateways
			}
		case <-c.ended:
			t.Fatalf("Run ended before it was ready: %v\n%s", c.err, c.log)
		case <-deadline:
			t.Fatalf("not ready after 20 s\n%s", c.log)
		}
	}
}

// awaitEnd returns what Run returned.
func (c *component) awaitEnd(t *testing.T) error {
	t.Helper()
	select {
	case <-c.ended:
		return c.err
	case <-time.After(20 * time.Second):
		t.Fatalf("Run did not end in 20 s\n%s", c.log)
		return nil
	}
}

// kill ends the process with a signal, and waits.
func (c *component) kill(t *testing.T, signal syscall.Signal) {
	t.Helper()
	must(t, syscall.Kill(c.pid, signal))
	_ = c.awaitEnd(t)
	for deadline := time.Now().Add(5 * time.Second); !c.process.Exited(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process lives on after %s", signal)
		}
	}
}

// stop stops the component as k3m does.
func (c *component) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	must(t, c.Stop(ctx))
	if err := c.awaitEnd(t); err != nil {
		t.Errorf("Run after Stop: %v", err)
	}
	c.process.Kill()
}

// cleanup runs the component's Cleanup in a process of its own.
func (h *host) cleanup() {
	h.t.Helper()
	c := h.start()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := c.Cleanup(ctx, client.CleanupRequest{Facts: h.facts, Config: json.RawMessage(h.config), StateDir: h.stateDir()})
	if err != nil {
		h.t.Errorf("Cleanup on %s: %v", h.name, err)
	}
	c.process.Kill()
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// carriedExecutables builds the CNI executables of carried/, once.
func carriedExecutables(t *testing.T) string {
	t.Helper()
	dir, err := buildCarried()
	must(t, err)
	return dir
}

var buildCarried = sync.OnceValues(func() (string, error) {
	dir := os.Getenv(carriedVariable)
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/", "tool")
	build.Dir = "carried"
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return dir, nil
})

func addAddress(t *testing.T, link netlink.Link, cidr string) {
	t.Helper()
	addr, err := netlink.ParseAddr(cidr)
	must(t, err)
	if addr.IP.To4() == nil {
		addr.Flags = syscall.IFA_F_NODAD
	}
	must(t, netlink.AddrAdd(link, addr))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
