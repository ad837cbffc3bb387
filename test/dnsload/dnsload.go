// Package dnsload asks a DNS server at a fixed rate and measures how long its answers
// take, each from the moment at which the query was due: a server that falls behind can't
// slow the clock down.
package dnsload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
)

// Load says what is asked.
type Load struct {
	// Server is asked over UDP.
	Server netip.AddrPort
	// Dial, if not nil, connects to it from elsewhere: "udp" and the address.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Questions are asked one after another, again and again.
	Questions []dns.Question
	// Rate is in queries a second, For how long.
	Rate int
	For  time.Duration
	// Sockets are how many clients there are, 16 if zero. Each has a port of its own, by
	// which the kernel chooses among the server's sockets.
	Sockets int
}

// Result is what came of it.
type Result struct {
	// Rate is that of the answers, in queries a second.
	Rate float64 `json:"answersPerSecond"`
	// Sent, Answered and Failed count queries; a failed one was answered with an error,
	// one that is neither was lost.
	Sent     int `json:"sent"`
	Answered int `json:"answered"`
	Failed   int `json:"failed"`
	// Times are from due to answered.
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
	Max time.Duration `json:"max"`
}

// tick is how often queries are sent, those that are due together.
const tick = time.Millisecond

// drain is how long answers are waited for after the last query.
const drain = 2 * time.Second

// client is one socket. Its ids are numbers of queries modulo 2^16: more of them are never
// under way.
type client struct {
	conn *net.UDPConn
	due  [1 << 16]atomic.Int64 // nanoseconds since the start; 0 is none

	sent, failed int
	times        []time.Duration
}

// Run asks, and waits for the answers.
func Run(ctx context.Context, l Load) (Result, error) {
	if l.Sockets == 0 {
		l.Sockets = 16
	}
	var packed [][]byte
	for _, q := range l.Questions {
		m := new(dns.Msg).SetQuestion(q.Name, q.Qtype)
		wire, err := m.Pack()
		if err != nil {
			return Result{}, fmt.Errorf("pack a question: %w", err)
		}
		packed = append(packed, wire)
	}
	if l.Dial == nil {
		l.Dial = new(net.Dialer).DialContext
	}
	clients := make([]*client, l.Sockets)
	for n := range clients {
		dialed, err := l.Dial(ctx, "udp", l.Server.String())
		if err != nil {
			return Result{}, fmt.Errorf("reach %s: %w", l.Server, err)
		}
		conn, ok := dialed.(*net.UDPConn)
		if !ok {
			return Result{}, fmt.Errorf("reach %s: no UDP socket", l.Server)
		}
		defer func() { _ = conn.Close() }() // all that was sent is counted
		_ = conn.SetReadBuffer(1 << 20)     // as much as there is
		clients[n] = &client{conn: conn, times: make([]time.Duration, 0, l.Rate*int(l.For/time.Second+1)/l.Sockets)}
	}
	start := time.Now()
	var receivers, senders sync.WaitGroup
	failures := make(chan error, 2*len(clients))
	for n, c := range clients {
		receivers.Go(func() { failures <- c.receive(start) })
		senders.Go(func() { failures <- c.send(ctx, l, packed, start, n) })
	}
	senders.Wait()
	for _, c := range clients {
		_ = c.conn.SetReadDeadline(time.Now().Add(drain))
	}
	receivers.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			return Result{}, err
		}
	}
	return sum(clients, l.For), nil
}

// send sends what is due at each tick, in one system call.
func (c *client) send(ctx context.Context, l Load, packed [][]byte, start time.Time, first int) error {
	batch := ipv4.NewPacketConn(c.conn)
	perSecond := float64(l.Rate) / float64(l.Sockets)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var messages []ipv4.Message
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := min(time.Since(start), l.For)
		messages = messages[:0]
		for ; float64(c.sent) < now.Seconds()*perSecond; c.sent++ {
			due := time.Duration(float64(c.sent) / perSecond * float64(time.Second))
			wire := slices.Clone(packed[(first+c.sent*l.Sockets)%len(packed)])
			id := uint16(c.sent)
			binary.BigEndian.PutUint16(wire, id)
			c.due[id].Store(int64(due) + 1)
			messages = append(messages, ipv4.Message{Buffers: [][]byte{wire}})
		}
		for rest := messages; len(rest) > 0; {
			n, err := batch.WriteBatch(rest, 0)
			if err != nil {
				return fmt.Errorf("ask: %w", err)
			}
			rest = rest[n:]
		}
		if now >= l.For {
			return nil
		}
	}
}

// receive takes answers until the deadline of the socket.
func (c *client) receive(start time.Time) error {
	batch := ipv4.NewPacketConn(c.conn)
	messages := make([]ipv4.Message, 64)
	for n := range messages {
		messages[n].Buffers = [][]byte{make([]byte, 1500)}
	}
	for {
		n, err := batch.ReadBatch(messages, 0)
		if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read answers: %w", err)
		}
		now := time.Since(start)
		for _, m := range messages[:n] {
			wire := m.Buffers[0][:m.N]
			if len(wire) < 12 {
				continue
			}
			due := c.due[binary.BigEndian.Uint16(wire)].Swap(0)
			if due == 0 {
				continue
			}
			if wire[3]&0xf != dns.RcodeSuccess || binary.BigEndian.Uint16(wire[6:]) == 0 {
				c.failed++
				continue
			}
			c.times = append(c.times, now-time.Duration(due-1))
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func sum(clients []*client, took time.Duration) Result {
	var r Result
	var times []time.Duration
	for _, c := range clients {
		r.Sent += c.sent
		r.Failed += c.failed
		times = append(times, c.times...)
	}
	r.Answered = len(times)
	r.Rate = float64(r.Answered) / took.Seconds()
	if len(times) > 0 {
		slices.Sort(times)
		r.P50, r.P99, r.Max = times[len(times)/2], times[len(times)*99/100], times[len(times)-1]
	}
	return r
}
