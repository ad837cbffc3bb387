package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

// A request that changes something does not outlive the server that serves it.
func TestAdminWaitsForRequests(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	begun, goOn, changed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		<-goOn
		close(changed)
	})
	ended := make(chan error, 1)
	go func() { ended <- serveRequests(ctx, listener, handler, slog.New(slog.DiscardHandler)) }()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://k3m/", nil)
		if err != nil {
			t.Error(err)
			return
		}
		if answer, err := client.Do(request); err != nil {
			t.Error(err)
		} else {
			_ = answer.Body.Close()
		}
	}()
	<-begun
	stop()
	close(goOn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	select {
	case <-changed:
	default:
		t.Error("a request is under way")
	}
	<-asked
}
