package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/k3m-io/k3m/components"
)

// The admin socket is how sub-commands speak with the server of a node: HTTP on a unix
// socket in a folder of the run directory that only root can enter.
const componentsPath = "/v1/components"

const maxAdminAnswer = 4 << 20

func adminSocket(runDir string) string { return filepath.Join(runDir, "server", "admin.sock") }

// serveAdmin serves the admin socket until ctx ends.
func (s *server) serveAdmin(ctx context.Context) error {
	socket := adminSocket(s.plan.cfg.RunDir)
	// The data directory's lock is held, so a socket that is there is a dead server's.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+componentsPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.components.Status()) // the reader has gone: nobody to tell
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 1 << 14}
	stopped := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stopped()
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// askAdmin gets path from the server of a node.
func askAdmin(ctx context.Context, runDir, path string, into any) error {
	socket := adminSocket(runDir)
	client := http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://k3m"+path, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open %s: only root may ask the server; try sudo", socket)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no server answers on %s; start one with `k3m server`, or name its --run-dir", socket)
	case err != nil:
		return fmt.Errorf("ask the server: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the server for %s: %s", path, answer.Status)
	}
	return json.NewDecoder(io.LimitReader(answer.Body, maxAdminAnswer)).Decode(into)
}

// componentStatuses are those of a running node.
func componentStatuses(ctx context.Context, n node) ([]components.ComponentStatus, error) {
	var statuses []components.ComponentStatus
	return statuses, askAdmin(ctx, n.runDir, componentsPath, &statuses)
}
