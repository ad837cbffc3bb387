package coredns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// dnsPort is where resolvers ask.
const dnsPort = 53

// Bounds of connections: CoreDNS's own timeouts, and how many a gateway holds at once.
const (
	tcpReadTimeout  = 3 * time.Second
	tcpWriteTimeout = 5 * time.Second
	tcpIdleTimeout  = 10 * time.Second
	maxConnections  = 1024
)

// receiveBuffer is what is asked for a UDP socket, in bytes; the kernel gives what
// net.core.rmem_max allows. A query takes some 800 of it until it is read.
const receiveBuffer = 4 << 20

// maxSockets bounds the UDP sockets of a gateway.
const maxSockets = 8

// sockets are what the component listens on: on each gateway a TCP socket, and as many UDP
// sockets as there are processors to read them, among which the kernel spreads clients
// (SO_REUSEPORT). They outlive chains.
type sockets struct {
	current atomic.Pointer[chain]
	// seen is told of each query before CoreDNS is, and takes those that are its own.
	seen func(*dns.Msg) bool

	udp     []*udpSocket
	tcp     []*dns.Server
	serving sync.WaitGroup
	failed  chan error
}

// aLongTimeAgo is a deadline that ends what waits.
var aLongTimeAgo = time.Unix(1, 0)

// listen binds the gateways and answers with first. seen must be quick and bear being
// called by many at once.
func listen(ctx context.Context, gateways []netip.Addr, first *chain, seen func(*dns.Msg) bool) (*sockets, error) {
	s := &sockets{seen: seen}
	s.current.Store(first)
	for _, gateway := range gateways {
		if err := s.bind(ctx, gateway); err != nil {
			for _, socket := range s.udp {
				_ = socket.conn.Close()
			}
			for _, server := range s.tcp {
				server.Listener.Close()
			}
			hint := ""
			if errors.Is(err, unix.EADDRINUSE) {
				hint = " (a server of the host listens on port 53 of all addresses, see ss -lunpt 'sport = :53'; let it listen on its own)"
			}
			return nil, fmt.Errorf("listen for queries on %s: %w%s", gateway, err, hint)
		}
	}
	s.failed = make(chan error, len(s.udp)+len(s.tcp))
	for _, socket := range s.udp {
		socket.start(s.failed)
	}
	for _, server := range s.tcp {
		s.serving.Go(func() {
			if err := server.ActivateAndServe(); err != nil {
				s.failed <- err
			}
		})
	}
	return s, nil
}

// bind opens the sockets of one gateway. The address need not be there (yet, or for a
// moment, while the bridge is made anew): IP_FREEBIND.
func (s *sockets) bind(ctx context.Context, gateway netip.Addr) error {
	address, family := netip.AddrPortFrom(gateway, dnsPort).String(), "4"
	if gateway.Is6() {
		family = "6"
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
				// The IPv4 option works on both families.
				unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1))
		})
		return errors.Join(err, failed)
	}}
	for range min(runtime.GOMAXPROCS(0), maxSockets) {
		conn, err := config.ListenPacket(ctx, "udp"+family, address)
		if err != nil {
			return err
		}
		udp, ok := conn.(*net.UDPConn)
		if !ok {
			return errors.ErrUnsupported // Go's net has no other
		}
		_ = udp.SetReadBuffer(receiveBuffer) // as much as there is
		s.udp = append(s.udp, &udpSocket{conn: udp, handler: s})
	}
	listener, err := config.Listen(ctx, "tcp"+family, address)
	if err != nil {
		return err
	}
	s.tcp = append(s.tcp, &dns.Server{
		Listener: netutil.LimitListener(listener, maxConnections), Handler: s, MaxTCPQueries: -1,
		ReadTimeout: tcpReadTimeout, WriteTimeout: tcpWriteTimeout,
		IdleTimeout: func() time.Duration { return tcpIdleTimeout },
	})
	return nil
}

// ServeDNS implements dns.Handler.
func (s *sockets) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	if s.seen(r) {
		refused := new(dns.Msg).SetRcode(r, dns.RcodeRefused)
		_ = w.WriteMsg(refused) // who asked may be gone
		return
	}
	server := s.current.Load().server
	ctx := context.WithValue(context.Background(), dnsserver.Key{}, server)
	server.ServeDNS(context.WithValue(ctx, dnsserver.LoopKey{}, 0), w, r)
}

// swap has queries that come from now on answered by next, and returns who answered
// before and may still have some under way.
func (s *sockets) swap(next *chain) *chain { return s.current.Swap(next) }

// close ends the sockets, and waits for the queries that were read from them until ctx
// ends.
func (s *sockets) close(ctx context.Context) {
	for _, server := range s.tcp {
		s.serving.Go(func() { _ = server.ShutdownContext(ctx) }) // what is left has had its time
	}
	answered := make(chan struct{})
	for _, socket := range s.udp {
		socket.close()
	}
	go func() {
		defer close(answered)
		for _, socket := range s.udp {
			socket.wait()
		}
	}()
	select {
	case <-answered:
	case <-ctx.Done(): // the rest ends with the upstreams' answers, within seconds
	}
	for _, socket := range s.udp {
		_ = socket.conn.Close()
	}
	s.serving.Wait()
}
