package nftables

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// probeTime is how long an answer is waited for that may not come.
const probeTime = 300 * time.Millisecond

// The ports that every place serves.
var (
	tcpPorts = []int{80, 81, 8080}
	udpPorts = []int{53, 5353}
)

// serve answers whatever comes, on all ports, and SCTP in a way: the kernel need not have
// it, so the packets are made by hand.
func (p *place) serve() {
	p.t.Helper()
	p.do(func() {
		for _, port := range tcpPorts {
			listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
			must(p.t, err)
			p.t.Cleanup(func() { _ = listener.Close() })
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
				}
			}()
		}
		for _, port := range udpPorts {
			// One socket for each address: the answer has to come from the one that was asked.
			for _, addr := range p.addrs {
				conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port))))
				must(p.t, err)
				p.t.Cleanup(func() { _ = conn.Close() })
				go echo(conn)
			}
		}
		for _, addr := range p.addrs {
			conn, err := net.ListenIP(ipNetwork(addr), &net.IPAddr{IP: addr.AsSlice()})
			must(p.t, err)
			p.t.Cleanup(func() { _ = conn.Close() })
			go echoSCTP(conn)
		}
	})
}

func ipNetwork(addr netip.Addr) string {
	if addr.Is4() {
		return "ip4:132"
	}
	return "ip6:132"
}

func echo(conn net.PacketConn) {
	buffer := make([]byte, 64)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(buffer[:n], from)
	}
}

// echoSCTP answers with the ports swapped.
func echoSCTP(conn net.PacketConn) {
	buffer := make([]byte, 64)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		if n < 12 || string(buffer[8:12]) != "ask!" {
			continue
		}
		answer := make([]byte, 12)
		copy(answer, buffer[2:4])
		copy(answer[2:], buffer[0:2])
		copy(answer[8:], "good")
		_, _ = conn.WriteTo(answer, from)
	}
}

// reaches says whether an answer comes from target, "tcp:10.42.0.5:80". from chooses one of the
// place's addresses, or none.
func (p *place) reaches(from, target string) (reached bool) {
	network, at, _ := strings.Cut(target, ":")
	addrPort := netip.MustParseAddrPort(at)
	p.do(func() {
		if network == "sctp" {
			reached = p.reachesSCTP(addrPort)
			return
		}
		dialer := net.Dialer{Timeout: probeTime}
		if from != "" {
			local := netip.AddrPortFrom(netip.MustParseAddr(from), 0)
			dialer.LocalAddr = net.TCPAddrFromAddrPort(local)
			if network == "udp" {
				dialer.LocalAddr = net.UDPAddrFromAddrPort(local)
			}
		}
		conn, err := dialer.Dial(network, addrPort.String())
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(probeTime))
		_, err = conn.Write([]byte("ask"))
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 3))
		}
		reached = err == nil
	})
	return reached
}

func (p *place) reachesSCTP(target netip.AddrPort) bool {
	conn, err := net.ListenIP(ipNetwork(target.Addr()), &net.IPAddr{})
	if err != nil {
		p.t.Error(err)
		return false
	}
	defer func() { _ = conn.Close() }()
	question := make([]byte, 12)
	binary.BigEndian.PutUint16(question, 40000)
	binary.BigEndian.PutUint16(question[2:], target.Port())
	copy(question[8:], "ask!")
	_ = conn.SetDeadline(time.Now().Add(probeTime))
	if _, err := conn.WriteTo(question, &net.IPAddr{IP: target.Addr().AsSlice()}); err != nil {
		return false
	}
	for buffer := make([]byte, 64); ; {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return false
		}
		if addr, ok := netip.AddrFromSlice(from.(*net.IPAddr).IP); ok && addr.Unmap() == target.Addr() && n >= 12 && string(buffer[8:12]) == "good" {
			return true
		}
	}
}

// probe is one line of what shall be reachable.
type probe struct {
	from *place
	addr string // of from; "" is any
	to   string
	want bool
}

// expect waits until all probes are as they shall be. Those that are not after a time in
// which the component could have changed the rules a hundred times are errors.
func expect(t testing.TB, probes ...probe) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		wrong := check(probes)
		if len(wrong) == 0 {
			// Again: some may have been asked before the change, and some after it.
			if wrong = check(probes); len(wrong) == 0 {
				return
			}
		}
		if time.Now().After(deadline) {
			for _, w := range wrong {
				t.Errorf("from %v (%s) to %s: reached is %t, want %t", w.from.addrs, w.addr, w.to, !w.want, w.want)
			}
			t.FailNow()
		}
	}
}

func check(probes []probe) (wrong []probe) {
	results := make([]bool, len(probes))
	var all sync.WaitGroup
	for i, p := range probes {
		all.Go(func() { results[i] = p.from.reaches(p.addr, p.to) })
	}
	all.Wait()
	for i, p := range probes {
		if results[i] != p.want {
			wrong = append(wrong, p)
		}
	}
	return wrong
}
