package supervisor

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func TestGuessesOfAPeer(t *testing.T) {
	p := newPeers(guessesPerSecond, guessBurst)
	for i := range 3 * guessBurst {
		right, ok := p.guess("192.0.2.1")
		if !ok {
			t.Fatalf("right token %d was refused", i)
		}
		right()
	}
	for i := range guessBurst {
		if _, ok := p.guess("192.0.2.1"); !ok {
			t.Fatalf("guess %d was refused", i)
		}
	}
	if _, ok := p.guess("192.0.2.1"); ok {
		t.Errorf("guess %d was not refused", guessBurst)
	}
	if _, ok := p.guess("192.0.2.2"); !ok {
		t.Error("another address was refused")
	}
}

func TestPeersAreBounded(t *testing.T) {
	p := newPeers(1, 1)
	p.of("kept")
	for i := range 3 * maxPeers {
		p.of(fmt.Sprint(i))
		p.of("kept")
	}
	if len(p.known) != maxPeers || p.known["kept"] == nil {
		t.Errorf("%d peers are known, want %d; the one in use: %v", len(p.known), maxPeers, p.known["kept"])
	}
}

// A node that asks without end has the others wait for no more than its part.
func TestQueueIsFair(t *testing.T) {
	s := &Supervisor{
		peers:    newPeers(peerRequestsPerSecond, peerRequestBurst),
		requests: rate.NewLimiter(requestsPerSecond, requestBurst),
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	refused := 0
	done := make(chan error, 10*requestBurst)
	for range cap(done) {
		go func() { done <- s.queue(ctx, "node greedy") }()
	}
	start := time.Now()
	if err := s.queue(ctx, "node modest"); err != nil || time.Since(start) > 500*time.Millisecond {
		t.Errorf("the modest node waited for %s: %v", time.Since(start), err)
	}
	for range cap(done) {
		if err := <-done; err != nil {
			mustRefuse(t, err)
			refused++
		}
	}
	if refused < requestBurst {
		t.Errorf("of %d requests at once %d were refused", cap(done), refused)
	}
}

func TestSource(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:1234":            "192.0.2.1",
		"[::ffff:192.0.2.1]:1":      "192.0.2.1",
		"[2001:db8::1]:1":           "2001:db8::/64",
		"[2001:db8::2:0:0:1]:1":     "2001:db8::/64",
		"[fe80::1%eth0]:1":          "fe80::/64",
		"@":                         "invalid IP",
		"[2001:db8:0:1::dead]:6443": "2001:db8:0:1::/64",
	} {
		if got := source(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("%s is %s, want %s", remote, got, want)
		}
	}
}
