package sdk

import (
	"context"
	"encoding/json"
	"io"
)

// Plugin is what an author writes: one component. Pass it to Serve.
//
//	New ── Info (any time, any number of times) ── Run (at most once) ── process ends
type Plugin interface {
	// Info says who the component is and what it asks for. It must have no side
	// effects and give the same answer each time: the host launches a plugin only if
	// its Info equals the one on record.
	Info() Info
	// Run does the component's work. It blocks until ctx ends (then it returns nil or
	// ctx.Err() soon; the host waits some seconds before it forces) or until the work
	// can't go on (then it returns why, and the host starts the plugin again with
	// back-off). Run calls host.Ready once it serves.
	Run(ctx context.Context, host *Host) error
}

// ConfigValidator is an optional ability: it checks a configuration block before it is
// used. raw is the block as JSON, never nil. It may be called at any time, also
// before Run, and by several goroutines.
type ConfigValidator interface {
	ValidateConfig(ctx context.Context, raw json.RawMessage) []ConfigProblem
}

// ConfigProblem is one mistake in a configuration block.
type ConfigProblem struct {
	// Path names the key: "backend", "pools[0].size"; empty for the whole block.
	Path string
	// Message says what was found and what is allowed.
	Message string
}

// Cleaner is an optional ability: it removes from the host all that Run may have left
// there (interfaces, rules, files outside the state directory). It is called in a
// process in which Run was not called, with the facts that are known then, after the
// component stopped. It must bear being called when there is nothing to remove.
type Cleaner interface {
	Cleanup(ctx context.Context, host *Host) error
}

// MetricsWriter is an optional ability: it writes the component's metrics in Prometheus'
// text exposition format (version 0.0.4), at most MaxMetricsBytes. The node serves them
// with its own, under the component's ID, so names that its own metrics have
// ("go_goroutines") are best left out. It may be called at any time while Run runs, by
// several goroutines.
type MetricsWriter interface {
	WriteMetrics(ctx context.Context, w io.Writer) error
}

// MaxMetricsBytes bounds what a MetricsWriter may write.
const MaxMetricsBytes = 3 << 20

// Commander is an optional ability: it serves the k3m sub-commands that Info.Commands
// lists (`k3m ctr` comes from runtime.containerd). The process is started for that one
// command with the user's terminal, environment and privileges, and no host: args are
// the words after the command's name, paths tells which node is meant. A returned error
// is printed and makes the exit code 1, unless it is an ExitCode.
type Commander interface {
	Command(ctx context.Context, name string, args []string, paths CommandPaths) error
}

// CommandPaths say which local node a sub-command is about.
type CommandPaths struct {
	// DataDir and RunDir are the node's --data-dir and --run-dir, absolute.
	DataDir, RunDir string
	// BinDir holds the executables that the distribution carries.
	BinDir string
}
