package sdk

import (
	"runtime/debug"
	"time"
)

const (
	// settleAfter is how long after the start of Run a plugin gives back what only its start
	// needed. It is one timer, once.
	settleAfter = 20 * time.Second
	// steadyGCPercent is the garbage collector's goal (see GOGC) from then on: most plugins
	// have a small heap that hardly changes.
	steadyGCPercent = 50
)

// settle gives the heap's reserve back to the host.
func settle() {
	debug.SetGCPercent(steadyGCPercent)
	debug.FreeOSMemory()
}
