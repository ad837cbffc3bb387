package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/hashicorp/go-plugin"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/internal/handshake"
	"github.com/k3m-io/k3m/sdk/internal/text"
	"google.golang.org/grpc"
)

// Words that a launcher puts into a plugin's environment.
const (
	// EnvLifeline names the inherited read end of a pipe whose write end the host holds.
	EnvLifeline = handshake.EnvLifeline
	// EnvLogLevel sets the level of Host.Logger: trace, debug, info, warn or error.
	EnvLogLevel = handshake.EnvLogLevel
	// ProtocolVersion is the go-plugin protocol version that this host speaks.
	ProtocolVersion = handshake.ProtocolVersion
)

// CommandEnv is the environment, to be added to the user's own, that makes a plugin's
// executable serve one sub-command (see sdk.Commander). The arguments after the
// plugin's own are the user's words.
func CommandEnv(name string, paths sdk.CommandPaths) []string {
	return []string{
		handshake.EnvCommand + "=" + name,
		handshake.EnvDataDir + "=" + paths.DataDir,
		handshake.EnvRunDir + "=" + paths.RunDir,
		handshake.EnvBinDir + "=" + paths.BinDir,
	}
}

// Configure fills in what the contract fixes of a go-plugin ClientConfig: cookie,
// versions, gRPC alone, mutual TLS, no environment of the host's, bounds on messages.
// The rest (the command or runner, StartTimeout, Logger, Stderr, UnixSocketConfig) is the
// caller's.
func Configure(c *plugin.ClientConfig) {
	c.HandshakeConfig = plugin.HandshakeConfig{
		MagicCookieKey: handshake.CookieKey, MagicCookieValue: handshake.CookieValue,
	}
	c.VersionedPlugins = map[int]plugin.PluginSet{
		handshake.ProtocolVersion: {handshake.PluginName: grpcPlugin{}},
	}
	c.AllowedProtocols = []plugin.Protocol{plugin.ProtocolGRPC}
	c.AutoMTLS = true
	c.SkipHostEnv = true
	c.GRPCDialOptions = append(c.GRPCDialOptions,
		grpc.WithDefaultCallOptions(callOptions()...),
		// An error's text travels in a header.
		grpc.WithMaxHeaderListSize(64<<10),
	)
}

// Connect starts the process of a go-plugin client that Configure has prepared, unless it
// runs already, and opens the connection. The address that the plugin gives must be a
// unix socket inside socketRoot (no check if that is ""). On an error the caller kills
// the client, as it does at the end.
//
// Its errors are sentences for an operator: they say what the plugin did instead of
// shaking hands, and for a version that can't be spoken, whose move it is.
func Connect(c *plugin.Client, socketRoot string) (*Client, error) {
	address, err := c.Start()
	if err != nil {
		return nil, startError(err)
	}
	if err := checkAddress(address, socketRoot); err != nil {
		return nil, err
	}
	protocol, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("connect to plugin: %w", err)
	}
	dispensed, err := protocol.Dispense(handshake.PluginName)
	if err != nil {
		return nil, fmt.Errorf("connect to plugin: %w", err)
	}
	return dispensed.(*Client), nil
}

func checkAddress(a net.Addr, root string) error {
	if a.Network() != "unix" {
		return fmt.Errorf("%w: it listens on %s, not on a unix socket", ErrProtocol, a.Network())
	}
	if root == "" {
		return nil
	}
	inside, err := filepath.Rel(root, a.String())
	if err != nil || !filepath.IsLocal(inside) {
		return fmt.Errorf("%w: its socket %q is not in its own directory", ErrProtocol, text.Clean(a.String(), maxReason))
	}
	return nil
}

var otherVersion = regexp.MustCompile(`Plugin version: (\d+)`)

// startError says in k3m's words what go-plugin's Start says in its own. go-plugin has no
// typed errors for these; a text that it changes stays an error, with its own words.
func startError(err error) error {
	said := text.Clean(err.Error(), maxReason)
	switch {
	case strings.Contains(said, "incompatible API version"):
		if m := otherVersion.FindStringSubmatch(said); m != nil {
			whose := "update k3m, or install a version of the plugin that is built for this one"
			if len(m[1]) < 3 && m[1] < fmt.Sprint(ProtocolVersion) {
				whose = "rebuild the plugin with a newer sdk"
			}
			return fmt.Errorf("%w: it speaks protocol version %s and this k3m speaks %d; %s", ErrProtocol, m[1], ProtocolVersion, whose)
		}
	case strings.Contains(said, "incompatible core API version"):
		return fmt.Errorf("%w: its go-plugin is another than k3m's; rebuild the plugin with a current sdk", ErrProtocol)
	case strings.Contains(said, "Failed to read any lines"), strings.Contains(said, "exited before"):
		return fmt.Errorf("start plugin: %w before it shook hands", ErrGone)
	case strings.Contains(said, "Unrecognized remote plugin message: "):
		_, line, _ := strings.Cut(said, "Unrecognized remote plugin message: ")
		line, _, _ = strings.Cut(line, "\n")
		return fmt.Errorf("%w: it wrote %.120q to standard output where the handshake belongs", ErrProtocol, line)
	case strings.Contains(said, "timeout while waiting"):
		return ErrStartTimeout
	case strings.Contains(said, "unsupported plugin protocol"):
		return fmt.Errorf("%w: it speaks net/rpc, and k3m speaks gRPC alone", ErrProtocol)
	}
	return fmt.Errorf("start plugin: %w", err)
}

// ErrStartTimeout means that the process runs but has not shaken hands within
// StartTimeout.
var ErrStartTimeout = errors.New("start plugin: it did not shake hands in time")

// grpcPlugin is the go-plugin adapter.
type grpcPlugin struct {
	plugin.NetRPCUnsupportedPlugin
}

// GRPCServer is the plugin's part: see sdk.Serve.
func (grpcPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("this is the host's side; the plugin's is sdk.Serve")
}

// GRPCClient wraps the open connection; go-plugin ends ctx with the process.
func (grpcPlugin) GRPCClient(ctx context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	c := New(conn)
	c.exited = ctx.Done()
	return c, nil
}
