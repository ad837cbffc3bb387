package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/k3m-io/k3m/components"
)

// What the admin socket tells of components:
//
//	GET  /v1/components              how all fare
//	GET  /v1/components/watch        the same and then each change, a JSON object a line
//	GET  /v1/components/{id}/config  the configuration in force
//	GET  /v1/components/{id}/logs    the last lines; ?tail=N, ?follow=true
//	POST /v1/components/{id}/restart
//	GET  /v1/usage                   processor, memory, processes
const (
	componentsPath      = "/v1/components"
	componentsWatchPath = componentsPath + "/watch"
	usagePath           = "/v1/usage"
)

// restartAnswer says how many restarts a component has had when it is up again.
type restartAnswer struct {
	Restarts int `json:"restarts"`
}

func componentPath(id, what string) string {
	return componentsPath + "/" + url.PathEscape(id) + "/" + what
}

func (s *server) componentRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+componentsPath, func(w http.ResponseWriter, _ *http.Request) {
		answerAdmin(w, s.components.Status())
	})
	mux.HandleFunc("GET "+componentsWatchPath, func(w http.ResponseWriter, r *http.Request) {
		streamAdmin(w, func(yield func(components.ComponentStatus) bool) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			for st := range s.components.Watch(ctx) {
				if !yield(st) {
					return
				}
			}
		})
	})
	mux.HandleFunc("GET "+componentsPath+"/{id}/config", func(w http.ResponseWriter, r *http.Request) {
		config := s.live.inForce().configs[r.PathValue("id")]
		if config == nil {
			config = json.RawMessage("{}")
		}
		answerAdmin(w, config)
	})
	mux.HandleFunc("GET "+componentsPath+"/{id}/logs", s.serveLogs)
	mux.HandleFunc("POST "+componentsPath+"/{id}/restart", func(w http.ResponseWriter, r *http.Request) {
		restarts, err := s.components.Restart(r.PathValue("id"))
		if err != nil {
			refuseAdmin(w, http.StatusUnprocessableEntity, err)
			return
		}
		answerAdmin(w, restartAnswer{restarts})
	})
	mux.HandleFunc("GET "+usagePath, func(w http.ResponseWriter, _ *http.Request) {
		usage, err := s.components.Usage()
		if err != nil {
			refuseAdmin(w, http.StatusInternalServerError, err)
			return
		}
		answerAdmin(w, usage)
	})
}

func (s *server) serveLogs(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if _, ok := s.live.inForce().catalog.Find(id); !ok {
		refuseAdmin(w, http.StatusUnprocessableEntity, fmt.Errorf("this k3m has no component %q", id))
		return
	}
	tail, err := strconv.Atoi(r.URL.Query().Get("tail"))
	if err != nil {
		refuseAdmin(w, http.StatusBadRequest, fmt.Errorf("tail: %w", err))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	flush := http.NewResponseController(w)
	if flush.Flush() != nil { // a follower is told at once that it was understood
		return
	}
	for line := range s.logs.Lines(r.Context(), id, tail, r.URL.Query().Get("follow") == "true") {
		if _, err := w.Write(line); err != nil || flush.Flush() != nil {
			return // the reader has gone
		}
	}
}
