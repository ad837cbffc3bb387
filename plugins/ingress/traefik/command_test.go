package traefik

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func stateIn(t *testing.T, dataDir string) string {
	t.Helper()
	state := filepath.Join(dataDir, "components", id, "state")
	must(t, os.MkdirAll(state, 0o700))
	return state
}

func TestDashboardIsOpened(t *testing.T) {
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "seen ", r.URL.Path) }))
	defer behind.Close()
	dataDir := t.TempDir()
	must(t, writeDashboardAddress(stateIn(t, dataDir), behind.Listener.Addr().String()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- openDashboard(ctx, in, "127.0.0.1:0", dataDir) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	_, rest, _ := strings.Cut(line, "http://")
	url, _, _ := strings.Cut(rest, ",")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+url, nil)
	must(t, err)
	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	answer.Body.Close()
	if string(body) != "seen /dashboard/" {
		t.Errorf("%s answers %q", url, body)
	}
	// As a page of another site asks, whose name leads to loopback.
	request.Host = "evil.example:9000"
	answer, err = http.DefaultClient.Do(request)
	must(t, err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("a request for %s is answered with %s", request.Host, answer.Status)
	}
	request.Host = "localhost:9000"
	answer, err = http.DefaultClient.Do(request)
	must(t, err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("a request for %s is answered with %s", request.Host, answer.Status)
	}
	cancel()
	must(t, <-ended)
}

func TestDashboardIsOnLoopback(t *testing.T) {
	dataDir := t.TempDir()
	if _, err := readDashboardAddress(dataDir); err == nil || !strings.Contains(err.Error(), "has not run") {
		t.Errorf("without a file: %v", err)
	}
	must(t, writeDashboardAddress(stateIn(t, dataDir), "192.0.2.1:80"))
	if address, err := readDashboardAddress(dataDir); err == nil {
		t.Errorf("it would lead to %s", address)
	}
}
