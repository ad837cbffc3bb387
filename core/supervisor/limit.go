package supervisor

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits on what others can make the server do.
const (
	// Who may join waits for its turn: a hundred nodes that come back after a power cut
	// are through in five seconds. Strangers don't get in the queue.
	requestsPerSecond = 20
	requestBurst      = 40
	// A node, or an address that nodes join from, has a part of it, so that one can't keep the
	// others out.
	peerRequestsPerSecond = 5
	peerRequestBurst      = 20
	// Wrong tokens are rare, and each is a guess: an address's are counted.
	guessesPerSecond = 1
	guessBurst       = 20
	// maxPeers bounds the memory of whom the limits are for.
	maxPeers = 1024
)

// peers are limiters by who asks. The longest unused is forgotten when there are too many: who
// has that many addresses isn't limited by this. It is safe for concurrent use.
type peers struct {
	limit rate.Limit
	burst int

	mu    sync.Mutex
	known map[string]*peer
}

type peer struct {
	limiter *rate.Limiter
	used    time.Time
}

func newPeers(limit rate.Limit, burst int) *peers {
	return &peers{limit: limit, burst: burst, known: map[string]*peer{}}
}

// of returns the limiter of a peer.
func (p *peers) of(name string) *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.known[name]
	if !ok {
		if len(p.known) >= maxPeers {
			p.forgetOne()
		}
		known = &peer{limiter: rate.NewLimiter(p.limit, p.burst)}
		p.known[name] = known
	}
	known.used = time.Now()
	return known.limiter
}

func (p *peers) forgetOne() {
	var oldest string
	for name, known := range p.known {
		if oldest == "" || known.used.Before(p.known[oldest].used) {
			oldest = name
		}
	}
	delete(p.known, oldest)
}

// guess takes one of a peer's guesses; right gives it back. ok is false when there is none left.
func (p *peers) guess(name string) (right func(), ok bool) {
	now := time.Now()
	r := p.of(name).ReserveN(now, 1)
	if r.DelayFrom(now) > 0 {
		r.CancelAt(now)
		return nil, false
	}
	return func() { r.CancelAt(now) }, true
}

// queue makes a request that is allowed wait for its turn: first among those of the same peer.
func (s *Supervisor) queue(ctx context.Context, peer string) error {
	if err := s.peers.of(peer).Wait(ctx); err != nil {
		return refuse(http.StatusTooManyRequests, "the server has too many requests of %s; try again", peer)
	}
	if err := s.requests.Wait(ctx); err != nil {
		return refuse(http.StatusTooManyRequests, "the server has too many requests of nodes; try again")
	}
	return nil
}

// source names where a request comes from: an IPv4 address, or the /64 of an IPv6 address, all
// of which one machine can have.
func source(r *http.Request) string {
	addr := peerAddr(r)
	if addr.Is6() {
		if prefix, err := addr.WithZone("").Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return addr.String()
}

// peerAddr is the address of the other side of the connection; invalid if there is none.
func peerAddr(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr().Unmap()
}
