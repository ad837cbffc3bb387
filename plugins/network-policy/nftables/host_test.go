package nftables

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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

const (
	nodeName  = "node-1"
	otherNode = "node-2"
	// testUser runs the component, as a user of its own.
	testUser = 31234
)

// node is the suite's network namespace: a bridge for pods, and a second interface to
// elsewhere, a namespace that stands for all other nodes and the rest of the world.
type node struct {
	t         testing.TB
	api       *fakeAPI
	dir       string
	records   string
	bridge    netlink.Link
	elsewhere *place
	self      *place
	facts     sdk.Facts
}

func newNode(t testing.TB) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	n := &node{t: t, dir: publicDir(t), api: newFakeAPI(t)}
	n.records = filepath.Join(n.dir, "agent/cni/networks")
	must(t, os.MkdirAll(filepath.Join(n.records, "k3m"), 0o755))
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	for _, name := range []string{
		"ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding",
		"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables",
	} {
		must(t, os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0o644))
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "cni0"
	n.bridge = &netlink.Bridge{LinkAttrs: attrs}
	must(t, netlink.LinkAdd(n.bridge))
	t.Cleanup(func() { must(t, netlink.LinkDel(n.bridge)) })
	addAddress(t, n.bridge, "10.42.0.1/24")
	addAddress(t, n.bridge, "fd42::1/64")
	must(t, netlink.LinkSetUp(n.bridge))
	n.self = &place{t: t, addrs: []netip.Addr{netip.MustParseAddr("10.42.0.1"), netip.MustParseAddr("fd42::1")}}
	n.addElsewhere()
	n.api.put(nodeObject(nodeName, "192.168.88.1", "10.42.0.0/24", "fd42::/64"), nodeObject(otherNode, "192.168.88.2", "10.42.1.0/24", "fd42:0:0:1::/64"))
	n.facts = sdk.Facts{
		NodeName: nodeName, NodeIPs: []netip.Addr{netip.MustParseAddr("192.168.88.1")},
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("fd42::/56")},
		PodGateways:  []netip.Addr{netip.MustParseAddr("10.42.0.1"), netip.MustParseAddr("fd42::1")},
		PacketFilter: sdk.NFTables, Paths: sdk.Paths{AgentDir: filepath.Join(n.dir, "agent")},
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := nft("list", "ruleset")
			t.Logf("rules at the end:\n%s", out)
		}
		_, _ = nft("flush", "ruleset")
	})
	return n
}

// nft runs the tool on the node, in cleanups too.
func nft(args ...string) ([]byte, error) {
	return exec.CommandContext(context.Background(), "nft", args...).CombinedOutput()
}

// addElsewhere makes the rest of the world, with some addresses of each sort.
func (n *node) addElsewhere() {
	t := n.t
	n.elsewhere = newPlace(t)
	ns, err := netns.GetFromPath(n.elsewhere.namespace)
	must(t, err)
	defer func() { _ = ns.Close() }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}))
	link, err := netlink.LinkByName("eth0")
	must(t, err)
	t.Cleanup(func() { must(t, netlink.LinkDel(link)) })
	addAddress(t, link, "192.168.88.1/24")
	addAddress(t, link, "fd88::1/64")
	must(t, netlink.LinkSetUp(link))
	n.elsewhere.do(func() {
		eth, err := netlink.LinkByName("eth0")
		must(t, err)
		addAddress(t, eth, "192.168.88.2/24")
		addAddress(t, eth, "fd88::2/64")
		must(t, netlink.LinkSetUp(eth))
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.LinkSetUp(lo))
		for _, addr := range []string{"10.42.1.0/32", "10.42.1.1/32", "10.42.1.5/32", "10.42.1.6/32", "172.16.1.1/32", "172.16.2.1/32", "fd42:0:0:1::5/128"} {
			addAddress(t, lo, addr)
		}
		addRoute(t, "10.42.0.0/24", "192.168.88.1")
		addRoute(t, "fd42::/64", "fd88::1")
	})
	for to, via := range map[string]string{"10.42.1.0/24": "192.168.88.2", "172.16.0.0/16": "192.168.88.2", "fd42:0:0:1::/64": "fd88::2"} {
		addRoute(t, to, via)
	}
}

func addRoute(t testing.TB, to, via string) {
	t.Helper()
	dst, err := netlink.ParseIPNet(to)
	must(t, err)
	must(t, netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: netip.MustParseAddr(via).AsSlice()}))
}

func addAddress(t testing.TB, link netlink.Link, cidr string) {
	t.Helper()
	addr, err := netlink.ParseAddr(cidr)
	must(t, err)
	if addr.IP.To4() == nil {
		addr.Flags = syscall.IFA_F_NODAD
	}
	must(t, netlink.AddrAdd(link, addr))
}

// publicDir is a directory that the component's user gets to.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "k3m-netpol-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// executable is this test's, where the component's user gets to it.
func executable(t testing.TB) string {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	must(t, err)
	defer func() { _ = self.Close() }()
	path := filepath.Join(publicDir(t), "component")
	target, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(target, self)
	must(t, err)
	must(t, target.Close())
	return path
}

// component is a process of the component.
type componentProcess struct {
	*client.Client
	t       testing.TB
	process *goplugin.Client
	pid     int
	reports chan client.Report
	ended   chan struct{}
	err     error // of Run; after ended
	log     *lockedBuffer
}

// start starts the component's process as k3m does: a user of its own with one capability,
// no_new_privs, an empty environment.
func (n *node) start() *componentProcess {
	t := n.t
	t.Helper()
	sockets, err := os.MkdirTemp("", "k3m")
	must(t, err)
	must(t, os.Chown(sockets, testUser, testUser))
	lifeline, hold, err := os.Pipe()
	must(t, err)
	const capability = "-all,+net_admin"
	cmd := exec.CommandContext(context.Background(), "setpriv", fmt.Sprintf("--reuid=%d", testUser), fmt.Sprintf("--regid=%d", testUser),
		"--clear-groups", "--no-new-privs", "--bounding-set="+capability, "--inh-caps="+capability, "--ambient-caps="+capability,
		executable(t), componentID)
	cmd.Env = []string{client.EnvLifeline + "=3", client.EnvLogLevel + "=debug", goplugin.EnvUnixSocketDir + "=" + sockets}
	cmd.ExtraFiles = []*os.File{lifeline}
	cmd.Dir = "/"
	c := &componentProcess{t: t, reports: make(chan client.Report, 64), ended: make(chan struct{}), log: &lockedBuffer{}}
	config := &goplugin.ClientConfig{Cmd: cmd, Logger: hclog.NewNullLogger(), Stderr: c.log, StartTimeout: 30 * time.Second}
	client.Configure(config)
	c.process = goplugin.NewClient(config)
	t.Cleanup(func() {
		_ = hold.Close()
		c.process.Kill()
		_ = os.RemoveAll(sockets)
		if t.Failed() {
			t.Logf("log of the component:\n%s", c.log)
		}
	})
	c.Client, err = client.Connect(c.process, sockets)
	_ = lifeline.Close()
	if err != nil {
		t.Fatalf("start the component: %v\n%s", err, c.log)
	}
	c.pid = cmd.Process.Pid
	return c
}

// begin starts the component.
func (n *node) begin() *componentProcess {
	n.t.Helper()
	c := n.start()
	kubeconfig := filepath.Join(n.dir, "kubeconfig")
	must(n.t, os.WriteFile(kubeconfig, []byte(n.api.kubeconfig()), 0o644))
	go func() {
		defer close(c.ended)
		c.err = c.Run(context.Background(), client.RunRequest{
			Facts: n.facts, Kubeconfig: kubeconfig, Config: json.RawMessage("{}"), StateDir: n.dir,
		}, func(r client.Report) {
			select {
			case c.reports <- r:
			default:
			}
		})
	}()
	return c
}

// run starts the component and waits until it is ready.
func (n *node) run() *componentProcess {
	n.t.Helper()
	c := n.begin()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case r := <-c.reports:
			if _, ok := r.(client.Ready); ok {
				return c
			}
		case <-c.ended:
			n.t.Fatalf("Run ended before it was ready: %v\n%s", c.err, c.log)
		case <-deadline:
			n.t.Fatalf("not ready after 20 s\n%s", c.log)
		}
	}
}

// kill ends the process with a signal that leaves it no time, and waits.
func (c *componentProcess) kill() {
	c.t.Helper()
	must(c.t, syscall.Kill(c.pid, syscall.SIGKILL))
	<-c.ended
}

// stop stops the component as k3m does.
func (c *componentProcess) stop() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	must(c.t, c.Stop(ctx))
	<-c.ended
	if c.err != nil {
		c.t.Errorf("Run after Stop: %v", c.err)
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

// place is where a connection can start or end: a network namespace.
type place struct {
	t         testing.TB
	namespace string // path; "" is the suite's own
	addrs     []netip.Addr
	release   func()
}

func newPlace(t testing.TB) *place {
	t.Helper()
	holder := exec.CommandContext(context.Background(), "/proc/self/exe") // needed by the test's cleanups too
	holder.Env = []string{roleVariable + "=hold"}
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	pipe, err := holder.StdinPipe()
	must(t, err)
	must(t, holder.Start())
	var once sync.Once
	p := &place{t: t, namespace: fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid), release: func() {
		once.Do(func() {
			_ = pipe.Close()
			_ = holder.Wait()
		})
	}}
	t.Cleanup(p.release)
	return p
}

// do runs f on a thread inside the place.
func (p *place) do(f func()) {
	p.t.Helper()
	if p.namespace == "" {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromPath(p.namespace)
		if err == nil {
			err = netns.Set(ns)
			_ = ns.Close()
		}
		if err != nil {
			p.t.Errorf("enter %s: %v", p.namespace, err)
			return
		}
		f()
	}()
	<-done
}

// cleanup runs the component's Cleanup in a process of its own.
func (n *node) cleanup() {
	n.t.Helper()
	c := n.start()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.Cleanup(ctx, client.CleanupRequest{Facts: n.facts, StateDir: n.dir}); err != nil {
		n.t.Errorf("Cleanup: %v", err)
	}
	c.process.Kill()
}
