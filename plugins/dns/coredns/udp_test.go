package coredns

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// startUDP answers on a free port of 127.0.0.1 with handle.
func startUDP(t testing.TB, handle dns.HandlerFunc) (*udpSocket, net.Conn) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	must(t, err)
	u := &udpSocket{conn: conn, handler: handle}
	failed := make(chan error, 1)
	u.start(failed)
	t.Cleanup(func() {
		u.close()
		u.wait()
		must(t, conn.Close())
		select {
		case err := <-failed:
			t.Error(err)
		default:
		}
	})
	client, err := new(net.Dialer).DialContext(t.Context(), "udp", conn.LocalAddr().String())
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	return u, client
}

func answerOK(w dns.ResponseWriter, r *dns.Msg) {
	_ = w.WriteMsg(new(dns.Msg).SetReply(r))
}

func TestMalformedQueries(t *testing.T) {
	_, client := startUDP(t, answerOK)
	pack := func(change func(*dns.Msg)) []byte {
		m := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
		change(m)
		wire, err := m.Pack()
		must(t, err)
		return wire
	}
	question := dns.Question{Name: "example.org.", Qtype: dns.TypeA, Qclass: dns.ClassINET}
	for _, c := range []struct {
		name  string
		query []byte
		want  int // response code; -1 is no answer
	}{
		{"nothing", nil, -1},
		{"less than a header", []byte("hello"), -1},
		{"an answer", pack(func(m *dns.Msg) { m.Response = true }), -1},
		{"an update", pack(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"no question", pack(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		{"two questions", pack(func(m *dns.Msg) { m.Question = append(m.Question, question) }), dns.RcodeFormatError},
		{"half a question", pack(func(*dns.Msg) {})[:20], dns.RcodeFormatError},
		{"a good one", pack(func(*dns.Msg) {}), dns.RcodeSuccess},
	} {
		t.Run(c.name, func(t *testing.T) {
			if len(c.query) >= 2 {
				c.query[0], c.query[1] = 0x12, 0x34
			}
			_, err := client.Write(c.query)
			must(t, err)
			// What is not answered is known by the answer to what is asked after it.
			if c.want < 0 {
				_, err = client.Write(pack(func(m *dns.Msg) { m.Id = 0x5678 }))
				must(t, err)
			}
			must(t, client.SetReadDeadline(time.Now().Add(patience)))
			reply := make([]byte, 512)
			n, err := client.Read(reply)
			must(t, err)
			var m dns.Msg
			must(t, m.Unpack(reply[:n]))
			switch {
			case c.want < 0 && m.Id != 0x5678:
				t.Errorf("answered: %v", m)
			case c.want >= 0 && (m.Id != 0x1234 || m.Rcode != c.want || !m.Response):
				t.Errorf("answered %v, want %s", m, dns.RcodeToString[c.want])
			}
		})
	}
}

// Queries that wait hold nobody up, and the goroutines that they took go again.
func TestWaitingQueries(t *testing.T) {
	const waiting = 200
	release := make(chan struct{})
	var entered sync.WaitGroup
	entered.Add(waiting)
	u, client := startUDP(t, func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Question[0].Qtype == dns.TypeTXT {
			entered.Done()
			<-release
		}
		answerOK(w, r)
	})
	ask := func(qtype uint16) {
		wire, err := new(dns.Msg).SetQuestion("example.org.", qtype).Pack()
		must(t, err)
		_, err = client.Write(wire)
		must(t, err)
	}
	answered := func() {
		t.Helper()
		must(t, client.SetReadDeadline(time.Now().Add(patience)))
		_, err := client.Read(make([]byte, 512))
		must(t, err)
	}
	for range waiting {
		ask(dns.TypeTXT)
	}
	entered.Wait()
	ask(dns.TypeA)
	answered()
	if all := u.all.Load(); all <= waiting {
		t.Errorf("%d readers for %d queries that wait and one that reads", all, waiting)
	}
	close(release)
	for range waiting {
		answered()
	}
	// The last ones go after they have answered.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for u.all.Load() > maxIdleReaders {
		select {
		case <-ctx.Done():
			t.Fatalf("%d readers are left", u.all.Load())
		case <-time.After(time.Millisecond):
		}
	}
}

// FuzzAnswer: no packet makes it panic.
func FuzzAnswer(f *testing.F) {
	wire, err := new(dns.Msg).SetQuestion("example.org.", dns.TypeA).Pack()
	must(f, err)
	f.Add(wire)
	f.Add([]byte{1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12})
	u, client := startUDP(f, answerOK)
	f.Fuzz(func(_ *testing.T, query []byte) {
		u.answer(query, netip.MustParseAddrPort(client.LocalAddr().String()))
	})
}
