// Package launch is the small process between the core and a plugin: it gives up what the
// plugin may not have and becomes the plugin.
//
//	core ── fork, exec ──► k3m-launch exec ── join cgroups, check digest, drop privileges, execveat ──► plugin
//	core ── fork, exec ──► k3m-launch reap ── waits for the core's end, ends what is left
//
// A process of its own does it because what has to happen between fork and exec (ambient
// capabilities, the bounding set, no_new_privs, the check of the very file that is
// executed) is more than os/exec's SysProcAttr can do, and because the core, a process of
// a hundred threads, must not give up anything itself.
//
// It imports the standard library, x/sys and package cgroup: it is a few megabytes, and
// the reaper stays in memory as long as the core does.
package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// File descriptors that `k3m-launch exec` inherits; os/exec's ExtraFiles start at 3.
const (
	// SpecFD is a pipe with the Spec as JSON.
	SpecFD = 3
	// LifelineFD is a pipe whose other end the core holds: it stays open in the plugin.
	LifelineFD = 4
	// StatusFD is a pipe on which a Failure is written when the plugin can't be
	// executed. It closes without a word when it was.
	StatusFD = 5
)

const maxSpec = 60 << 10 // less than what a pipe holds, so that the core never blocks

// Spec says what to execute, as whom.
type Spec struct {
	// Path is the executable, an ELF file, without a symbolic link in its last element.
	Path string `json:"path"`
	// Args are its arguments, the zeroth included.
	Args []string `json:"args"`
	// SHA256 is the file's digest in hexadecimal.
	SHA256 string `json:"sha256"`
	// Cgroup holds the directories of the control group to join, if any.
	Cgroup []string `json:"cgroup,omitempty"`
	// KeepPrivileges leaves user, groups, capabilities and no_new_privs as they are: for
	// a runtime, whose children are the pods.
	KeepPrivileges bool `json:"keepPrivileges,omitempty"`
	// UID and GID are taken on, with no supplementary groups. Negative: as they are.
	UID int `json:"uid"`
	GID int `json:"gid"`
	// Capabilities are the numbers (capability.h) of all that the process and its children
	// can ever have.
	Capabilities []int `json:"capabilities,omitempty"`
	// Umask is set before the execution.
	Umask int `json:"umask"`
	// Limits are resource limits by their number (unix.RLIMIT_…). A hard limit is
	// lowered, never raised.
	Limits []Limit `json:"limits,omitempty"`
}

// Limit is a resource limit, soft and hard alike.
type Limit struct {
	Resource int    `json:"resource"`
	Value    uint64 `json:"value"`
	// SoftOnly leaves the hard limit as it is.
	SoftOnly bool `json:"softOnly,omitempty"`
}

// Encode returns the spec as the launcher reads it.
func (s Spec) Encode() ([]byte, error) {
	data, err := json.Marshal(s)
	if err == nil && len(data) > maxSpec {
		err = fmt.Errorf("it has %d bytes; at most %d are allowed", len(data), maxSpec)
	}
	if err != nil {
		return nil, fmt.Errorf("encode launch spec: %w", err)
	}
	return data, nil
}

// Failure says why a plugin could not be executed.
type Failure struct {
	// Refused means that the file is not what it should be: trying again is of no use
	// before it changes.
	Refused bool   `json:"refused,omitempty"`
	Message string `json:"message"`
}

func (f *Failure) Error() string { return f.Message }

// refusal is an error that makes a Failure with Refused.
type refusal struct{ error }

// ReadStatus reads what the launcher says on StatusFD: nil means that the plugin was
// executed.
func ReadStatus(r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxSpec))
	if err != nil {
		return fmt.Errorf("read the launcher's status: %w", err)
	}
	if len(data) == 0 {
		return nil
	}
	f := &Failure{}
	if err := json.Unmarshal(data, f); err != nil {
		return fmt.Errorf("read the launcher's status %q: %w", data, err)
	}
	return f
}

// Main is the main function of k3m-launch. It returns the exit code.
func Main(args []string) int {
	switch {
	case len(args) == 2 && args[1] == "exec":
		return mainExec()
	case len(args) == 3 && args[1] == "reap":
		return mainReap(args[2])
	}
	fmt.Fprintln(os.Stderr, "k3m-launch starts plugins for the k3m server and agent; it is not meant to be run by hand")
	return 2
}

func mainExec() int {
	err := execSpec(os.NewFile(SpecFD, "spec"))
	failure := Failure{Message: err.Error()}
	var refused refusal
	failure.Refused = errors.As(err, &refused)
	data, _ := json.Marshal(failure)
	if _, err := unix.Write(StatusFD, data); err != nil {
		fmt.Fprintln(os.Stderr, "k3m-launch:", failure.Message)
	}
	return 1
}
