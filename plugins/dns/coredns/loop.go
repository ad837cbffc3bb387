package coredns

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// A resolver that sends what it does not know back to the cluster's DNS would have each
// query go round until something gives. CoreDNS's own plugin loop ends the process when
// it sees that; this asks each upstream once for a name that nobody else knows, and tells
// the server which of them it came back from, to be left out.

const (
	// probeTimeout is how long one upstream is waited for.
	probeTimeout = 2 * time.Second
	// probeRetry is the pause before one that did not answer is asked again: it may not
	// be up yet, and nobody tells when it is.
	probeRetry = 5 * time.Second
	// probeTries bounds that, as CoreDNS's 30 seconds do.
	probeTries = 5
	// loopRecheck is how often one that leads back is asked whether it still does.
	loopRecheck = 30 * time.Second
)

// loopFinding says whether an upstream leads back here.
type loopFinding struct {
	upstream netip.AddrPort
	loops    bool
}

// probes finds upstreams that lead back to this node's own sockets.
type probes struct {
	mu   sync.Mutex
	seen map[string]bool // by the name that was asked for
}

func newProbes() *probes { return &probes{seen: map[string]bool{}} }

// take says whether a query is one of the probes, and remembers that it came back.
func (p *probes) take(r *dns.Msg) bool {
	if len(r.Question) != 1 || r.Question[0].Qtype != dns.TypeHINFO {
		return false
	}
	name := strings.ToLower(r.Question[0].Name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ours := p.seen[name]; !ours {
		return false
	}
	p.seen[name] = true
	return true
}

// check tells report what comes of each upstream, until that is settled or ctx ends.
func (p *probes) check(ctx context.Context, upstreams []netip.AddrPort, report func(loopFinding)) {
	var checks sync.WaitGroup
	for _, upstream := range upstreams {
		checks.Go(func() {
			for try, loops := 0, false; ; try++ {
				back, answered := p.probe(ctx, upstream)
				if ctx.Err() != nil {
					return
				}
				pause := probeRetry
				switch {
				case back:
					if !loops {
						report(loopFinding{upstream, true})
					}
					loops, try, pause = true, 0, loopRecheck
				case answered && loops:
					report(loopFinding{upstream, false})
					return
				case answered || try >= probeTries && !loops:
					return
				case loops:
					pause = loopRecheck
				}
				timer := time.NewTimer(pause)
				select {
				case <-ctx.Done():
					timer.Stop()
					return
				case <-timer.C:
				}
			}
		})
	}
	checks.Wait()
}

// probe asks an upstream once. back says that the question came back here, answered that
// the upstream answered.
func (p *probes) probe(ctx context.Context, upstream netip.AddrPort) (back, answered bool) {
	label := make([]byte, 16)
	_, _ = rand.Read(label) // never fails
	name := hex.EncodeToString(label[:8]) + "." + hex.EncodeToString(label[8:]) + "."
	p.mu.Lock()
	p.seen[name] = false
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		back = p.seen[name]
		delete(p.seen, name)
		p.mu.Unlock()
	}()
	question := new(dns.Msg).SetQuestion(name, dns.TypeHINFO)
	client := &dns.Client{Timeout: probeTimeout}
	_, _, err := client.ExchangeContext(ctx, question, upstream.String())
	return false, err == nil
}
