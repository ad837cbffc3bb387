package main

import (
	"net/http"
	"net/http/pprof"
)

// profilesPath is where the admin socket serves Go's profiles of the core when --profiling asks for
// them:
//
//	curl -o cpu.pprof --unix-socket /run/k3m/server/admin.sock 'http://k3m/debug/pprof/profile?seconds=30'
//
// They tell much of what the process holds, so they are for root, who can read it all anyway; the
// ports of the Kubernetes parts serve none.
const profilesPath = "/debug/pprof/"

func profilingRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+profilesPath, pprof.Index) // and all profiles that have a name
	mux.HandleFunc("GET "+profilesPath+"profile", pprof.Profile)
	mux.HandleFunc("GET "+profilesPath+"trace", pprof.Trace)
}
