// Package components is the registry of k3m: which kinds of components there are, which
// plugins fill them, which of those a node runs, and the supervision of their processes.
// It is the host's side of the contract whose other side is package sdk.
//
//	kinds.go       the catalog of kinds
//	catalog.go     what plugins there are: catalog.json (built-in) and plugins.lock (installed)
//	trust.go       may this file be executed: who could have changed it
//	inspect.go     ask a plugin who it is, with no privileges; bake.go, install.go, describe.go
//	selection.go   --enable and --disable to a list of components, or an error that helps
//	supervisor.go  the life of a node's components: start, order, stop, what they report
//	lifecycle.go   the life of one component: states, restarts, back-off; work.go: its Run
//	serving.go     where components serve their Services; metrics.go: what they measure
//	apply.go       another selection or configuration while components run; restart.go: its next process
//	process.go     the life of one plugin process; runner.go: what go-plugin sees of it
//	reaper.go      what happens to plugins when the core is killed; sweep.go: at the next start
//	authorize.go   the API rights of components; policies.go: the fence between nodes
//	cleanup.go     what components leave on the host, removed
//
// launch/ is the process between the core and a plugin, cgroup/ how process trees end.
//
// # The life of a component
//
// Processes are launched at once, side by side, and asked who they are; Run is called as
// soon as what a component requires is there. Nothing else orders them.
//
//	          ┌────────────────────────── back-off over, or Restart ──────────────────┐
//	          ▼                                                                       │
//	──► Launching ──► Waiting ──► Starting ──► Ready ◄──► Degraded                    │
//	          │          │           │           │            │                       │
//	          │          └───────────┴─────┬─────┴────────────┘                       │
//	          │                            ▼  process died or fell silent, Run failed │
//	          │                         Exited ──► Backoff ───────────────────────────┤
//	          ▼                                └─► CrashLoop (five times in a row) ───┘
//	       Refused   digest, Info or file permissions are not those on record,
//	                 the contract is broken, the configuration is wrong
//
//	any state ── the supervisor ends ──► Stopping ──► Stopped
//	any state ── not selected any more ► Stopping ──► Stopped ──► Removed (see Supervisor.Apply)
//
// A refused component is not tried again before Restart is called: nothing changes by
// trying. All others are tried for ever. The death of a component touches no other:
// those that require it go on, and find it again.
package components
