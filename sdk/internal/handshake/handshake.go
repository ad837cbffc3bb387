// Package handshake holds the words that a plugin's process and its host must agree on
// before the first call: environment variables, the magic cookie, version and limits.
package handshake

const (
	// CookieKey is the variable that tells a plugin that it was started by k3m and not by
	// a person. It is no secret.
	CookieKey = "K3M_PLUGIN"
	// CookieValue is its value.
	CookieValue = "component"

	// ProtocolVersion counts breaking changes of the wire contract.
	ProtocolVersion = 1
	// PluginName is the name of the one service in go-plugin's plugin set.
	PluginName = "component"

	// MaxMessageBytes bounds a message in either direction. The largest is an Info with
	// its rules and its schema, some tens of KiB.
	MaxMessageBytes = 4 << 20

	// EnvLifeline names the inherited descriptor whose end of file says that the host
	// is gone.
	EnvLifeline = "K3M_LIFELINE_FD"
	// EnvLogLevel is an hclog level; "info" when it is not set.
	EnvLogLevel = "K3M_LOG_LEVEL"

	// EnvCommand asks a plugin to serve one sub-command instead of the contract.
	EnvCommand = "K3M_PLUGIN_COMMAND"
	// EnvDataDir fills sdk.CommandPaths.DataDir.
	EnvDataDir = "K3M_DATA_DIR"
	// EnvRunDir fills sdk.CommandPaths.RunDir.
	EnvRunDir = "K3M_RUN_DIR"
	// EnvBinDir fills sdk.CommandPaths.BinDir.
	EnvBinDir = "K3M_BIN_DIR"
)
