package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
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
const maxAdminAnswer = 4 << 20

func adminSocket(runDir string) string { return filepath.Join(runDir, "server", "admin.sock") }

// serveAdmin serves the admin socket until ctx ends and, within reason, no request is under way.
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
	return serveRequests(ctx, listener, mux, s.log)
}

// serveRequests serves until ctx ends, with which requests under way are to end.
func serveRequests(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 1 << 14,
		BaseContext: func(net.Listener) context.Context { return ctx }, // what follows something ends with it
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		log.Warn("a command's request goes on although the server stops", "error", errors.Join(err, srv.Close()))
	}
	<-served
	return nil
}

// adminGrace is how long requests under way may take when the server stops: a reload ends with the
// components, which have stopped by then.
const adminGrace = 3 * time.Second

// adminRoutes are what sub-commands may ask. Each lives beside the command that asks it.
func (s *server) adminRoutes(mux *http.ServeMux) {
	s.reloadRoutes(mux)
	s.componentRoutes(mux)
	s.statusRoutes(mux)
	s.snapshotRoutes(mux)
	s.logRoutes(mux)
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

// refusalStatus is 400 for a mistake in what was asked for, which the command then exits with 2
// for as if it had found it out itself.
func refusalStatus(err error) int {
	if isMistake(err) {
		return http.StatusBadRequest
	}
	return http.StatusUnprocessableEntity
}

// askAdmin gets path from the server of a node.
func askAdmin(ctx context.Context, runDir, path string, into any) error {
	return callAdmin(ctx, runDir, http.MethodGet, path, into)
}

// callAdmin sends a request without a body to the server of a node and decodes its answer;
// with a nil into, the answer's content is not read.
func callAdmin(ctx context.Context, runDir, method, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, adminPatience)
	defer cancel()
	return sendAdmin(ctx, runDir, method, path, nil, into)
}

// adminPatience is for what a server answers at once.
const adminPatience = 10 * time.Second

// sendAdmin is callAdmin with a value as the request's JSON body, and as long as ctx allows.
func sendAdmin(ctx context.Context, runDir, method, path string, value, into any) error {
	body, err := openAdmin(ctx, runDir, method, path, value)
	if err != nil {
		return err
	}
	defer body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(body, maxAdminAnswer)).Decode(into); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

// openAdmin sends a request and returns the answer's body, which may go on as long as ctx
// does. The caller closes it.
func openAdmin(ctx context.Context, runDir, method, path string, value any) (io.ReadCloser, error) {
	socket := adminSocket(runDir)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	var content io.Reader
	if value != nil {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://k3m"+path, content)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("open %s: only root may ask the server; try sudo", socket)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, noServerError{socket}
	case err != nil:
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	if answer.StatusCode/100 == 2 {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096)) // without it, the status has to do
	sentence := strings.TrimSpace(string(text))
	if sentence == "" || strings.HasPrefix(sentence, "404 page not found") {
		sentence = fmt.Sprintf("ask the server for %s: %s", path, answer.Status)
	}
	return nil, refusedError{answer.StatusCode, sentence}
}

// refusedError is what a server answered that did not do what it was asked. Any other error
// leaves open whether it did.
type refusedError struct {
	status   int
	sentence string
}

func (e refusedError) Error() string { return e.sentence }

// noServerError says that no server runs, or none with this run directory.
type noServerError struct{ socket string }

func (e noServerError) Error() string {
	return fmt.Sprintf("no server answers on %s; start one with `k3m server`, or name its --run-dir", e.socket)
}

// streamAdmin writes values as JSON, one a line, each as soon as it is there.
func streamAdmin[T any](w http.ResponseWriter, values iter.Seq[T]) {
	w.Header().Set("Content-Type", "application/jsonl")
	flush := http.NewResponseController(w)
	encode := json.NewEncoder(w)
	for value := range values {
		if encode.Encode(value) != nil || flush.Flush() != nil {
			return // the reader has gone
		}
	}
}

// followAdmin reads what streamAdmin writes until ctx ends, use returns false, or the server
// has gone.
func followAdmin[T any](ctx context.Context, runDir, path string, use func(T) bool) error {
	body, err := openAdmin(ctx, runDir, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	decoder := json.NewDecoder(body)
	for {
		var value T
		if err := decoder.Decode(&value); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("the server has gone: %w", err)
		}
		if !use(value) {
			return nil
		}
	}
}

// componentStatuses are those of a running node.
func componentStatuses(ctx context.Context, n node) ([]components.ComponentStatus, error) {
	var statuses []components.ComponentStatus
	return statuses, askAdmin(ctx, n.runDir, componentsPath, &statuses)
}
