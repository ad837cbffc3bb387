package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/health"
)

const (
	reloadPath   = "/v1/reload"
	settingsPath = "/v1/settings"
	// maxReload bounds the request: a drop-in of at most 1 MiB, as JSON.
	maxReload = 3 << 20
)

// reloadRequest asks a server to read its configuration files again.
type reloadRequest struct {
	// Check asks what would be done, and does nothing.
	Check bool `json:"check,omitempty"`
	// Path and Text are a drop-in as it is going to be; a nil Text: to be removed. Without
	// a Path all is as on the disk.
	Path string  `json:"path,omitempty"`
	Text *string `json:"text,omitempty"`
}

// reloadAnswer says what a reload did, or would do.
type reloadAnswer struct {
	Started   []string `json:"started,omitempty"`
	Stopped   []string `json:"stopped,omitempty"`
	Restarted []string `json:"restarted,omitempty"`
	// Left says what could not be removed from the host, by component.
	Left map[string]string `json:"left,omitempty"`
	// Restarts counts those of each component before the change.
	Restarts map[string]int `json:"restarts,omitempty"`
	// Later are options that wait for the next start of the server.
	Later []string `json:"later,omitempty"`
	// Uses are objects that depend on what stops; only for a check.
	Uses []dependents `json:"uses,omitempty"`
}

func (a reloadAnswer) unchanged() bool {
	return len(a.Started)+len(a.Stopped)+len(a.Restarted) == 0
}

// String is for the log.
func (a reloadAnswer) String() string {
	var said []string
	for _, part := range []struct {
		verb string
		what []string
	}{{"started", a.Started}, {"stopped", a.Stopped}, {"restarts", a.Restarted}} {
		if len(part.what) > 0 {
			said = append(said, part.verb+" "+strings.Join(part.what, ", "))
		}
	}
	if len(said) == 0 {
		return "no component changes"
	}
	return strings.Join(said, "; ")
}

// settingsAnswer is what a command needs to know of a server to change its configuration.
type settingsAnswer struct {
	// File is the main configuration file.
	File string `json:"file"`
	// Stronger are the flags and variables of the server that no file can change, by option.
	Stronger map[string]string `json:"stronger,omitempty"`
}

func (s *server) reloadRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+settingsPath, func(w http.ResponseWriter, _ *http.Request) {
		answer := settingsAnswer{File: s.plan.cfg.File, Stronger: map[string]string{}}
		for _, option := range appliedLive {
			if source := s.loader.Stronger(option); source != "" {
				answer.Stronger[option] = source
			}
		}
		answerAdmin(w, answer)
	})
	mux.HandleFunc("POST "+reloadPath, func(w http.ResponseWriter, r *http.Request) {
		var request reloadRequest
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReload))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&request); err != nil && !errors.Is(err, io.EOF) {
			refuseAdmin(w, http.StatusBadRequest, fmt.Errorf("read the request: %w", err))
			return
		}
		answer, err := s.reload(r.Context(), request)
		if err != nil {
			refuseAdmin(w, refusalStatus(err), err)
			return
		}
		answerAdmin(w, answer)
	})
}

// followSignals reads the files again at each SIGHUP, until ctx ends.
func (s *server) followSignals(ctx context.Context) error {
	for {
		select {
		case <-s.hangup:
		case <-ctx.Done():
			return nil
		}
		answer, err := s.reload(ctx, reloadRequest{})
		switch {
		case err != nil && ctx.Err() != nil: // the server stops
		case err != nil:
			s.health.Set(notReloaded(err))
			s.log.Error("configuration not reloaded; all goes on as before", "error", strings.ReplaceAll(err.Error(), "\n", "; "))
		default:
			s.log.Info("configuration reloaded", "changes", answer.String())
		}
	}
}

// unreadableError says that no server could start with the configuration.
type unreadableError struct{ error }

func (e unreadableError) Unwrap() error { return e.error }

// notReloaded is what the board says from a reload that failed until one succeeds.
func notReloaded(err error) health.Condition {
	message := strings.ReplaceAll(err.Error(), "\n", "; ") + "; not in force"
	var unreadable unreadableError
	if errors.As(err, &unreadable) {
		message = strings.TrimSuffix(message, "in force") + "read, and the next start would fail"
	}
	return health.Condition{
		Part: partConfiguration, State: health.Degraded, Message: message,
		Fix: "mend what the message names and send the server SIGHUP (with systemd: `systemctl reload k3m`)",
	}
}

// reload reads the configuration files again and makes components what they say, without
// touching anything else. An error means that nothing has changed.
func (s *server) reload(ctx context.Context, request reloadRequest) (reloadAnswer, error) {
	if !happened(ctx, s.authorized) {
		return reloadAnswer{}, fmt.Errorf("the API is not up yet: %w", context.Cause(ctx))
	}
	s.live.turn.Lock()
	defer s.live.turn.Unlock()
	next, err := s.replan(request)
	if err != nil {
		return reloadAnswer{}, unreadableError{err}
	}
	client, err := kubernetes.NewForConfig(s.controlPlane.AdminConfig())
	if err != nil {
		return reloadAnswer{}, err
	}
	answer := reloadAnswer{Restarts: map[string]int{}, Later: forLater(s.plan.cfg, next.cfg)}
	for _, st := range s.components.Status() {
		answer.Restarts[st.ID] = st.Restarts
	}
	before := s.live.inForce()
	change := components.Change{Selection: next.selection, Config: next.configs}
	if request.Check {
		outcome, err := s.components.Check(ctx, change)
		if err != nil {
			return answer, s.placed(next.cfg, err)
		}
		answer.fill(outcome)
		answer.Uses, err = findDependents(ctx, client, before.selection, next.selection)
		return answer, err
	}
	change.Prepare = func(ctx context.Context) error {
		both := either(before.selection, next.selection)
		s.live.allow(both)
		if err := s.authorize(ctx, client, both); err != nil {
			s.live.allow(before.selection.Infos())
			s.board.setSelected(before.selection.Infos())
			s.reauthorize(ctx, client, before.selection.Infos())
			return err
		}
		s.board.setSelected(both) // what new ones own is there when they start
		return nil
	}
	outcome, err := s.components.Apply(ctx, change)
	if err != nil {
		s.board.setSelected(before.selection.Infos())
		return answer, s.placed(next.cfg, err)
	}
	answer.fill(outcome)
	s.live.use(next)
	s.health.Remove(partConfiguration)
	s.live.setLater(answer.Later)
	if len(answer.Later) > 0 {
		s.log.Warn("changed options take effect when k3m is started again", "options", strings.Join(answer.Later, ", "))
	}
	// What went has stopped: a client that gave up must not keep it its rights.
	if !outcome.Unchanged() || s.live.owes() {
		s.reauthorize(ctx, client, next.selection.Infos())
	}
	if !outcome.Unchanged() {
		s.applied(next.selection)
	}
	return answer, nil
}

// applied tells the rest of the server which components are selected from now on.
func (s *server) applied(selection components.Selection) {
	var ids []string
	for _, info := range selection.Infos() {
		ids = append(ids, info.ID())
	}
	s.board.setSelected(selection.Infos())
	s.log.Info("components selected", "components", strings.Join(ids, " "))
}

// replan is the plan of the files as they are, or with the request's drop-in.
func (s *server) replan(request reloadRequest) (*plan, error) {
	overlay := map[string][]byte{}
	if request.Path != "" {
		overlay[request.Path] = nil
		if request.Text != nil {
			overlay[request.Path] = []byte(*request.Text)
		}
	}
	cfg, err := s.loader.Load(overlay)
	if err != nil {
		return nil, err
	}
	next, err := newPlan(cfg)
	if err != nil {
		return nil, err
	}
	return next, nil
}

// placed names the file and line of a configuration that a component refused.
func (s *server) placed(cfg *config.Config, err error) error {
	var refused *components.ConfigError
	if !errors.As(err, &refused) {
		return err
	}
	block, ok := cfg.Components[refused.ID]
	if !ok {
		return err
	}
	return &config.Error{Source: block.At(refused.Path), Message: refused.Error()}
}

func (a *reloadAnswer) fill(o components.Outcome) {
	a.Started, a.Stopped, a.Restarted = o.Started, o.Stopped, o.Restarted
	for _, id := range slices.Sorted(maps.Keys(o.Left)) {
		if a.Left == nil {
			a.Left = map[string]string{}
		}
		a.Left[id] = strings.ReplaceAll(o.Left[id].Error(), "\n", "; ")
	}
}
