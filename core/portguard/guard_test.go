package portguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"sigs.k8s.io/knftables"
)

// isolated says that the test process runs in a network namespace of its own: the node's.
const isolated = "K3M_TEST_ISOLATED"

func TestMain(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(isolated) != "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // the parent of Pdeathsig is a thread
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "isolate the tests:", err)
		os.Exit(1)
	}
}

const (
	gateway = "10.42.0.1"
	guarded = "10.42.0.1:53"
	open    = "10.42.0.1:54"
	// What kube-proxy translates to the guarded port.
	clusterIP = "10.43.0.10"
	nodePort  = "192.0.2.1:30053"
)

// lab is a node with a pod, and a neighbour in its network that has a route to the pods:
//
//	pod 10.42.0.5 ── cni0 10.42.0.1 (node) 192.0.2.1 ── 192.0.2.2 lan (10.42.1.7, 10.42.0.77)
type lab struct {
	t        *testing.T
	node     netns.NsHandle
	pod, lan netns.NsHandle
	received chan string // what the guarded port receives
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	l := &lab{t: t, received: make(chan string, 100)}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var err error
	if l.node, err = netns.Get(); err != nil {
		t.Fatal(err)
	}
	l.pod, l.lan = l.newNamespace(), l.newNamespace()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
	l.must(netlink.LinkAdd(bridge))
	t.Cleanup(func() { _ = netlink.LinkDel(bridge) })
	l.up("cni0", gateway+"/24")
	l.up("lo")
	pod := l.cable("pod", l.pod)
	l.must(netlink.LinkSetMaster(pod, bridge))
	l.up("pod")
	l.cable("lan", l.lan)
	l.up("lan", "192.0.2.1/24")
	l.route("10.42.1.0/24", "192.0.2.2") // another node's pods, as with flannel's host-gw
	l.in(l.pod, func() { l.up("lo"); l.up("eth0", "10.42.0.5/24"); l.route("0.0.0.0/0", gateway) })
	l.in(l.lan, func() {
		l.up("lo", "10.42.1.7/32", "10.42.0.77/32")
		l.up("eth0", "192.0.2.2/24")
		l.route("10.42.0.0/24", "192.0.2.1")
		l.route("10.43.0.0/16", "192.0.2.1")
	})
	for _, address := range []string{guarded, open} {
		l.serve(address)
	}
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// newNamespace makes a namespace and comes back. The thread is locked.
func (l *lab) newNamespace() netns.NsHandle {
	l.t.Helper()
	ns, err := netns.New()
	l.must(err)
	l.must(netns.Set(l.node))
	l.t.Cleanup(func() { _ = ns.Close() })
	return ns
}

// cable joins the node with a namespace, in which the other end is eth0.
func (l *lab) cable(name string, ns netns.NsHandle) netlink.Link {
	l.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	l.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}))
	link, err := netlink.LinkByName(name)
	l.must(err)
	l.t.Cleanup(func() { _ = netlink.LinkDel(link) })
	return link
}

func (l *lab) up(name string, addresses ...string) {
	l.t.Helper()
	link, err := netlink.LinkByName(name)
	l.must(err)
	for _, a := range addresses {
		addr, err := netlink.ParseAddr(a)
		l.must(err)
		l.must(netlink.AddrAdd(link, addr))
	}
	l.must(netlink.LinkSetUp(link))
	// What the kernel itself would drop is not what is tested.
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0)
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0)
}

func (l *lab) route(to, via string) {
	l.t.Helper()
	dst, err := netlink.ParseIPNet(to)
	l.must(err)
	l.must(netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)}))
}

// in calls f in a namespace.
func (l *lab) in(ns netns.NsHandle, f func()) {
	l.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l.must(netns.Set(ns))
	defer func() { l.must(netns.Set(l.node)) }()
	f()
}

// serve answers every packet with what it was; the guarded port's are taken down.
func (l *lab) serve(address string) {
	l.t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(l.t.Context(), "udp", address)
	l.must(err)
	ended := make(chan struct{})
	l.t.Cleanup(func() { _ = conn.Close(); <-ended })
	go func() {
		defer close(ended)
		b := make([]byte, 64)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if address == guarded {
				l.received <- string(b[:n])
			}
			_, _ = conn.WriteTo(b[:n], from)
		}
	}()
}

// send sends a packet from a namespace, from an address of it or any.
func (l *lab) send(ns netns.NsHandle, from, to, text string) net.Conn {
	l.t.Helper()
	var conn net.Conn
	l.in(ns, func() {
		dialer := net.Dialer{}
		if from != "" {
			dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
		}
		var err error
		conn, err = dialer.DialContext(l.t.Context(), "udp", to)
		l.must(err)
		_, err = conn.Write([]byte(text))
		l.must(err)
	})
	l.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask waits for the answer to a packet.
func (l *lab) ask(ns netns.NsHandle, to string) {
	l.t.Helper()
	conn := l.send(ns, "", to, "a question")
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 64)); err != nil {
		l.t.Errorf("%s does not answer: %v", to, err)
	}
}

// reaches says which of the ways to the guarded port are open. A packet to the open port that
// takes the same way afterwards tells when the first would have been there.
func (l *lab) reaches() (ways []string) {
	l.t.Helper()
	for _, way := range []struct {
		name     string
		ns       netns.NsHandle
		from, to string
	}{
		{"the node", l.node, "", guarded},
		{"a pod", l.pod, "", guarded},
		{"another node's pod", l.lan, "10.42.1.7", guarded},
		{"a pod by way of the Service", l.pod, "", clusterIP + ":53"},
		{"a neighbour by way of a node port", l.lan, "", nodePort},
		{"a neighbour by way of the Service", l.lan, "", clusterIP + ":53"},
		{"a neighbour", l.lan, "192.0.2.2", guarded},
		{"a neighbour in a pod's name", l.lan, "10.42.0.77", guarded},
	} {
		l.send(way.ns, way.from, way.to, way.name)
		l.ask(way.ns, open)
	drain:
		for {
			select {
			case name := <-l.received:
				ways = append(ways, name)
			default:
				break drain
			}
		}
	}
	return ways
}

// translate is what kube-proxy does for a Service with a node port.
func (l *lab) translate() {
	l.t.Helper()
	nft, err := knftables.New(knftables.IPv4Family, "service")
	l.must(err)
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Add(&knftables.Chain{Name: "nat", Type: knftables.PtrTo(knftables.NATType),
		Hook: knftables.PtrTo(knftables.PreroutingHook), Priority: knftables.PtrTo(knftables.DNATPriority)})
	tx.Add(&knftables.Rule{Chain: "nat", Rule: "ip daddr " + clusterIP + " udp dport 53 dnat to " + guarded})
	tx.Add(&knftables.Rule{Chain: "nat", Rule: "ip daddr 192.0.2.1 udp dport 30053 dnat to " + guarded})
	l.must(nft.Run(l.t.Context(), tx))
	l.t.Cleanup(func() {
		tx := nft.NewTransaction()
		tx.Delete(&knftables.Table{})
		_ = nft.Run(context.Background(), tx)
	})
}

func ruleset(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", "nft list ruleset; iptables-save 2>/dev/null; ip6tables-save 2>/dev/null").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestGuard(t *testing.T) {
	wanted := "the node, a pod, another node's pod, a pod by way of the Service, a neighbour by way of a node port"
	everybody := wanted + ", a neighbour by way of the Service, a neighbour, a neighbour in a pod's name"
	for _, mode := range []struct {
		name     string
		nftables bool
		want     string
	}{
		{"nftables", true, wanted},
		// iptables' check of the way back belongs to another table: the kernel's rp_filter has to do.
		{"iptables", false, wanted + ", a neighbour in a pod's name"},
	} {
		t.Run(mode.name, func(t *testing.T) {
			l := newLab(t)
			l.translate()
			ways := func() string { return strings.Join(l.reaches(), ", ") }
			if got := ways(); got != everybody {
				t.Fatalf("without a guard: %s", got)
			}
			g := New(Options{
				DataDir: "/var/lib/one", NFTables: mode.nftables, Pods: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("fd00:42::/56")},
				Services: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16"), netip.MustParsePrefix("fd00:43::/112")},
				Logger:   slog.New(slog.NewTextHandler(t.Output(), nil)),
			})
			other := New(Options{DataDir: "/var/lib/two", NFTables: mode.nftables, Logger: g.opts.Logger})
			ports := []Port{{netip.MustParseAddr(gateway), "UDP", 53}, {netip.MustParseAddr(gateway), "TCP", 53}, {netip.MustParseAddr("fd00:42::1"), "UDP", 53}}
			for range 2 { // the second finds the rules of the first, as after a restart
				if err := g.write(t.Context(), ports); err != nil {
					t.Fatal(err)
				}
			}
			if err := other.write(t.Context(), []Port{{netip.MustParseAddr("10.42.0.2"), "TCP", 80}}); err != nil {
				t.Fatal(err)
			}
			if got := ways(); got != mode.want {
				t.Errorf("with a guard: %s\n%s", got, ruleset(t))
			}
			if err := g.write(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if got := ways(); got != everybody {
				t.Errorf("with nothing to guard: %s", got)
			}
			if err := Remove(t.Context(), "/var/lib/two"); err != nil {
				t.Error(err)
			}
			if left := ruleset(t); strings.Contains(strings.ToLower(left), "k3m-guard") {
				t.Errorf("left:\n%s", left)
			}
		})
	}
}

// Run writes what Set said last, and tries again what failed.
func TestGuardFollows(t *testing.T) {
	writes := make(chan []Port)
	fail := true
	g := New(Options{Logger: slog.New(slog.DiscardHandler)})
	g.write = func(_ context.Context, ports []Port) error {
		writes <- ports
		if fail {
			fail = false
			return errors.New("the lock is held")
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	a, b := Port{netip.MustParseAddr("10.42.0.1"), "UDP", 53}, Port{netip.MustParseAddr("10.42.0.1"), "TCP", 53}
	g.Set([]Port{a, b, a})
	go func() { done <- g.Run(ctx) }()
	for range 2 {
		if got := <-writes; len(got) != 2 || got[0] != b {
			t.Errorf("wrote %v", got)
		}
	}
	g.Set([]Port{b, a}) // the same
	g.Set(nil)
	if got := <-writes; len(got) != 0 {
		t.Errorf("wrote %v", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
