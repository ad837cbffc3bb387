package components

import (
	"time"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// State is where a component is in its life; see the package's diagram.
type State string

// The states.
const (
	Launching State = "Launching"
	Waiting   State = "Waiting"
	Starting  State = "Starting"
	Ready     State = "Ready"
	Degraded  State = "Degraded"
	Exited    State = "Exited"
	Backoff   State = "Backoff"
	CrashLoop State = "CrashLoop"
	Refused   State = "Refused"
	Stopping  State = "Stopping"
	Stopped   State = "Stopped"
	// Removed is not a state to be in: Watch sends it once, when a component that is not
	// selected any more is gone with all that it left on the host.
	Removed State = "Removed"
)

// serving tells whether what requires the component may run: it has been ready, and its
// process lives.
func (s State) serving() bool { return s == Ready || s == Degraded }

// ComponentStatus is how a component fares.
type ComponentStatus struct {
	ID      string    `json:"id"`
	Version string    `json:"version"`
	Summary string    `json:"summary"`
	Scope   sdk.Scope `json:"scope"`
	// Installed tells an installed plugin from a built-in one.
	Installed bool `json:"installed,omitempty"`

	State State `json:"state"`
	// Reason says why, or what the component waits for; empty when it is ready.
	Reason string `json:"reason,omitempty"`
	// Since is when the component entered the state.
	Since time.Time `json:"since"`
	// Restarts counts the processes after the first.
	Restarts int `json:"restarts"`
	// LastError is how the last process that failed ended.
	LastError     string    `json:"lastError,omitempty"`
	LastErrorTime time.Time `json:"lastErrorTime,omitzero"`
	// NextStart is when the component is started again, in Backoff and CrashLoop.
	NextStart time.Time `json:"nextStart,omitzero"`

	// PID is 0 when no process runs.
	PID int `json:"pid,omitempty"`
	UID int `json:"uid"`
	// Capabilities are those that the process has; a runtime has all that k3m has.
	Capabilities []string `json:"capabilities,omitempty"`
	// Endpoints are where it serves the Services of its Info; none unless it is Ready or
	// Degraded. They are shared: nobody changes them.
	Endpoints []nodestatus.Endpoint `json:"endpoints,omitempty"`
}
