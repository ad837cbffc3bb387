package harness

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// SwitchAddr is the switch's own address and the hosts' default gateway. Nothing is
// forwarded there.
var SwitchAddr = netip.MustParseAddr("198.18.0.1")

// SwitchAddr6 is its IPv6 address, and the hosts' gateway likewise.
var SwitchAddr6 = netip.MustParseAddr("fd42:198:18::1")

// Switch is a network namespace with a bridge that joins the hosts. It lives as long as
// its descriptor does.
type Switch struct {
	ns     netns.NsHandle
	handle *netlink.Handle
	bridge netlink.Link
}

func newSwitch() (*Switch, error) {
	ns, err := newNetNS()
	if err != nil {
		return nil, fmt.Errorf("make the switch's network namespace: %w", err)
	}
	s := &Switch{ns: ns}
	if err := s.setUp(); err != nil {
		s.close()
		return nil, fmt.Errorf("set up the switch: %w", err)
	}
	return s, nil
}

func (s *Switch) setUp() error {
	var err error
	if s.handle, err = netlink.NewHandleAt(s.ns); err != nil {
		return err
	}
	lo, err := s.handle.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := s.handle.LinkSetUp(lo); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "switch"
	if err := s.handle.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return err
	}
	if s.bridge, err = s.handle.LinkByName("switch"); err != nil {
		return err
	}
	for _, addr := range []netip.Addr{SwitchAddr, SwitchAddr6} {
		if err := s.handle.AddrAdd(s.bridge, linkAddr(addr)); err != nil {
			return err
		}
	}
	return s.handle.LinkSetUp(s.bridge)
}

// linkAddr is an address on the switch's network, at once usable: nobody else has it.
func linkAddr(addr netip.Addr) *netlink.Addr {
	bits := 24
	flags := 0
	if addr.Is6() {
		bits, flags = 64, unix.IFA_F_NODAD
	}
	return &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, addr.BitLen())}, Flags: flags}
}

// plug joins a host's network namespace to the switch: eth0 with its addresses, the
// default routes to the switch, and loopback up.
func (s *Switch) plug(ns netns.NsHandle, port string, addrs ...netip.Addr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = port
	attrs.MasterIndex = s.bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}
	if err := s.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	if err := s.handle.LinkSetUp(veth); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := inside.LinkByName(name)
		if err != nil {
			return err
		}
		if err := inside.LinkSetUp(link); err != nil {
			return err
		}
		if name == "lo" {
			continue
		}
		for _, addr := range addrs {
			if err := inside.AddrAdd(link, linkAddr(addr)); err != nil {
				return err
			}
			gateway := SwitchAddr
			if addr.Is6() {
				gateway = SwitchAddr6
			}
			if err := inside.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// unplug removes a host's port, if the end of its namespace has not done so already.
func (s *Switch) unplug(port string) {
	if link, err := s.handle.LinkByName(port); err == nil {
		_ = s.handle.LinkDel(link) // the end of the namespace may have come before
	}
}

// Ports are the names of the interfaces that are plugged in.
func (s *Switch) Ports() ([]string, error) {
	links, err := s.handle.LinkList()
	if err != nil {
		return nil, err
	}
	var ports []string
	for _, l := range links {
		if l.Attrs().MasterIndex == s.bridge.Attrs().Index {
			ports = append(ports, l.Attrs().Name)
		}
	}
	return ports, nil
}

// Dial connects from the switch, as a client outside of all nodes. addr holds an IP
// address.
func (s *Switch) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return dialIn(ctx, s.ns, network, addr)
}

func (s *Switch) close() {
	if s.handle != nil {
		s.handle.Close()
	}
	_ = s.ns.Close()
}

// newNetNS makes a network namespace that only the returned descriptor holds.
func newNetNS() (netns.NsHandle, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody else gets to run
		// in the new namespace.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{netns.None(), err}
			return
		}
		ns, err := netns.GetFromPath(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		done <- result{ns, err}
	}()
	r := <-done
	return r.ns, r.err
}

// dialIn connects from a network namespace: a socket belongs to the one that its thread
// was in when it was made, and stays there.
func dialIn(ctx context.Context, ns netns.NsHandle, network, addr string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		if err := lockInto(ns); err != nil {
			done <- result{nil, err}
			return
		}
		var d net.Dialer // an IP literal is dialled by this goroutine and no other
		conn, err := d.DialContext(ctx, network, addr)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// lockInto locks the goroutine to its thread, for good (see newNetNS), and moves the
// thread into a network namespace.
func lockInto(ns netns.NsHandle) error {
	runtime.LockOSThread()
	return os.NewSyscallError("setns", unix.Setns(int(ns), unix.CLONE_NEWNET))
}

// Listen listens on the switch, as a server outside of all nodes.
func (s *Switch) Listen(network, addr string) (ln net.Listener, err error) {
	return listenIn(s.ns, network, addr)
}

// ListenPacket takes packets on the switch, as a server outside of all nodes.
func (s *Switch) ListenPacket(network, addr string) (conn net.PacketConn, err error) {
	err = runIn(s.ns, func() (err error) {
		conn, err = new(net.ListenConfig).ListenPacket(context.Background(), network, addr)
		return err
	})
	return conn, err
}

// Listen listens in the host.
func (h *Host) Listen(network, addr string) (net.Listener, error) {
	return listenIn(h.net, network, addr)
}

func listenIn(ns netns.NsHandle, network, addr string) (ln net.Listener, err error) {
	err = runIn(ns, func() (err error) {
		ln, err = new(net.ListenConfig).Listen(context.Background(), network, addr)
		return err
	})
	return ln, err
}

// runIn runs f on a thread that is in a network namespace.
func runIn(ns netns.NsHandle, f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err = lockInto(ns); err == nil {
			err = f()
		}
	}()
	<-done
	return err
}
