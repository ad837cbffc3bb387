package coredns

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
)

const (
	// maxQuery is the longest query that is read, in bytes: one name and EDNS options.
	maxQuery = 2048
	// maxIdleReaders is how many goroutines of a socket wait for queries at most.
	maxIdleReaders = 8
	// maxReaders bounds them with those that have one to answer. More queries wait in the
	// socket, and are dropped by the kernel when that is full.
	maxReaders = 4096
)

// udpSocket answers the queries of one UDP socket. A goroutine reads a query and answers
// it itself, while another one goes on reading: queries that wait for an upstream hold
// nobody up, and goroutines, whose stacks have grown to what CoreDNS takes, are used
// again. miekg/dns starts one for each query, which is half of what an answer costs.
type udpSocket struct {
	conn    *net.UDPConn
	handler dns.Handler

	idle, all atomic.Int32 // readers: those that wait, and all
	readers   sync.WaitGroup
	failed    chan<- error
}

// start answers queries until close.
func (u *udpSocket) start(failed chan<- error) {
	u.failed = failed
	u.idle.Add(1)
	u.all.Add(1)
	u.readers.Go(u.read)
}

// close stops the reading, and wait waits for the answers under way.
func (u *udpSocket) close() { _ = u.conn.SetReadDeadline(aLongTimeAgo) }
func (u *udpSocket) wait()  { u.readers.Wait() }

func (u *udpSocket) read() {
	defer u.all.Add(-1)
	query := make([]byte, maxQuery)
	for {
		n, from, err := u.conn.ReadFromUDPAddrPort(query)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
				select {
				case u.failed <- err:
				default: // one is enough
				}
			}
			return
		}
		if u.idle.Add(-1) == 0 && u.all.Load() < maxReaders {
			u.idle.Add(1)
			u.all.Add(1)
			u.readers.Go(u.read)
		}
		u.answer(query[:n], from)
		if u.idle.Add(1) > maxIdleReaders {
			u.idle.Add(-1)
			return
		}
	}
}

// answer does with a query what miekg/dns does.
func (u *udpSocket) answer(query []byte, from netip.AddrPort) {
	const header = 12
	if len(query) < header {
		return
	}
	field := func(n int) uint16 { return binary.BigEndian.Uint16(query[2*n:]) }
	head := dns.Header{Id: field(0), Bits: field(1), Qdcount: field(2), Ancount: field(3), Nscount: field(4), Arcount: field(5)}
	r := new(dns.Msg)
	rcode := dns.RcodeSuccess
	switch dns.DefaultMsgAcceptFunc(head) {
	case dns.MsgAccept:
		if r.Unpack(query) != nil {
			rcode = dns.RcodeFormatError
		}
	case dns.MsgReject:
		rcode = dns.RcodeFormatError
	case dns.MsgRejectNotImplemented:
		rcode = dns.RcodeNotImplemented
	default: // an answer, which is not answered
		return
	}
	w := &udpWriter{socket: u, to: from}
	if rcode == dns.RcodeSuccess {
		u.handler.ServeDNS(w, r)
		return
	}
	refused := new(dns.Msg)
	refused.Id, refused.Response, refused.Rcode = head.Id, true, rcode
	refused.Opcode = int(head.Bits>>11) & 0xf
	_ = w.WriteMsg(refused) // who asked may be gone
}

// udpWriter answers one query.
type udpWriter struct {
	socket *udpSocket
	to     netip.AddrPort
}

var _ dns.ResponseWriter = (*udpWriter)(nil)

// LocalAddr implements dns.ResponseWriter.
func (w *udpWriter) LocalAddr() net.Addr { return w.socket.conn.LocalAddr() }

// RemoteAddr implements dns.ResponseWriter.
func (w *udpWriter) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(w.to) }

// buffers hold packed answers, of up to the size that clients mostly allow.
var buffers = sync.Pool{New: func() any { return new([4096]byte) }}

// WriteMsg implements dns.ResponseWriter.
func (w *udpWriter) WriteMsg(m *dns.Msg) error {
	buffer, _ := buffers.Get().(*[4096]byte)
	defer buffers.Put(buffer)
	packed, err := m.PackBuffer(buffer[:])
	if err != nil {
		return err
	}
	_, err = w.Write(packed)
	return err
}

// Write implements dns.ResponseWriter.
func (w *udpWriter) Write(packed []byte) (int, error) {
	return w.socket.conn.WriteToUDPAddrPort(packed, w.to)
}

// Close implements dns.ResponseWriter: there is no connection.
func (*udpWriter) Close() error { return nil }

// TsigStatus implements dns.ResponseWriter: there are no keys.
func (*udpWriter) TsigStatus() error { return nil }

// TsigTimersOnly implements dns.ResponseWriter.
func (*udpWriter) TsigTimersOnly(bool) {}

// Hijack implements dns.ResponseWriter.
func (*udpWriter) Hijack() {}
