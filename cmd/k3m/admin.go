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
	"strings"
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
	s.adminRoutes(mux)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 1 << 14}
	stopped := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stopped()
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// adminRoutes are what sub-commands may ask. Each lives beside the command that asks it.
func (s *server) adminRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+componentsPath, func(w http.ResponseWriter, _ *http.Request) {
		answerAdmin(w, s.components.Status())
	})
	if s.plan.cfg.Profiling {
		profilingRoutes(mux)
	}
}

// answerAdmin writes value as JSON.
func answerAdmin(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // the reader has gone: nobody to tell
}

// refuseAdmin answers with one sentence, which askAdmin returns as its error.
func refuseAdmin(w http.ResponseWriter, status int, err error) {
	http.Error(w, err.Error(), status)
}

// askAdmin gets path from the server of a node.
func askAdmin(ctx context.Context, runDir, path string, into any) error {
	return callAdmin(ctx, runDir, http.MethodGet, path, into)
}

// callAdmin sends a request without a body to the server of a node and decodes its answer;
// with a nil into, the answer's content is not read.
func callAdmin(ctx context.Context, runDir, method, path string, into any) error {
	socket := adminSocket(runDir)
	client := http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://k3m"+path, nil)
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
	if answer.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096)) // without it, the status has to do
		if sentence := strings.TrimSpace(string(text)); sentence != "" && answer.StatusCode != http.StatusNotFound {
			return errors.New(sentence)
		}
		return fmt.Errorf("ask the server for %s: %s", path, answer.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(io.LimitReader(answer.Body, maxAdminAnswer)).Decode(into)
}

// componentStatuses are those of a running node.
func componentStatuses(ctx context.Context, n node) ([]components.ComponentStatus, error) {
	var statuses []components.ComponentStatus
	return statuses, askAdmin(ctx, n.runDir, componentsPath, &statuses)
}
