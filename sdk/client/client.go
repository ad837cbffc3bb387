package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/internal/handshake"
	"github.com/k3m-io/k3m/sdk/internal/text"
	"github.com/k3m-io/k3m/sdk/proto/pluginv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// ErrGone means that the plugin's process has ended, or doesn't speak any more.
	ErrGone = errors.New("the plugin's process is gone")
	// ErrUnsupported means that the plugin does not have the ability; see sdk.Info.Has.
	ErrUnsupported = errors.New("the plugin does not have this ability")
	// ErrProtocol means that the plugin broke the contract: what it said is malformed,
	// out of bounds or out of order. Starting it again will not help.
	ErrProtocol = errors.New("the plugin broke the contract")
)

// ComponentError is what a component itself gave as the reason why a call failed.
type ComponentError struct {
	// Message is printable, and at most some KiB long.
	Message string
}

// Error is the component's own message.
func (e *ComponentError) Error() string { return e.Message }

// Client speaks to one plugin's process. Its methods may be called by several goroutines
// at once.
type Client struct {
	rpc    pluginv1.PluginClient
	exited <-chan struct{}
}

// New makes a Client of an open connection. Most callers have a go-plugin client and
// use Connect.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{rpc: pluginv1.NewPluginClient(conn)}
}

// Exited is closed when the plugin's process has ended and its output was read to the
// end, which a child that inherited the output delays. It is nil, and so never closed,
// for a Client that was made with New.
func (c *Client) Exited() <-chan struct{} { return c.exited }

func callOptions() []grpc.CallOption {
	return []grpc.CallOption{
		grpc.MaxCallRecvMsgSize(handshake.MaxMessageBytes),
		grpc.MaxCallSendMsgSize(handshake.MaxMessageBytes),
	}
}

// Info asks the plugin who it is, and validates the answer.
func (c *Client) Info(ctx context.Context) (sdk.Info, error) {
	r, err := c.rpc.Info(ctx, &pluginv1.InfoRequest{}, callOptions()...)
	if err != nil {
		return sdk.Info{}, callError(ctx, "ask the plugin for its info", err)
	}
	info := infoFromWire(r.GetInfo())
	if err := info.Validate(); err != nil {
		return sdk.Info{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return info, nil
}

// ValidateConfig asks the plugin whether it would take a configuration block. It is
// ErrUnsupported where the plugin's Info lacks sdk.AbilityValidateConfig.
func (c *Client) ValidateConfig(ctx context.Context, config json.RawMessage) ([]sdk.ConfigProblem, error) {
	r, err := c.rpc.ValidateConfig(ctx, &pluginv1.ValidateConfigRequest{Config: config}, callOptions()...)
	if err != nil {
		return nil, callError(ctx, "validate configuration", err)
	}
	return problemsFromWire(r.GetProblems()), nil
}

// RunRequest is what a component is given.
type RunRequest struct {
	Facts sdk.Facts
	// Kubeconfig is the path of the component's own kubeconfig, or empty.
	Kubeconfig string
	// Config is the component's block as JSON; nil for none.
	Config json.RawMessage
	// StateDir is the component's own directory.
	StateDir string
	// ServingCert and ServingKey are the paths of PEM files; empty unless the component
	// asked for them.
	ServingCert, ServingKey string
}

// Run starts the component's work and blocks until it ends. Each report is handed to
// onReport, one at a time and in order; Run waits for onReport to return. The result is
// nil if the component ended because Stop was called, a *ComponentError if it failed,
// ErrGone if its process died, ErrProtocol if it said something that it may not, and
// ctx's cause if ctx ended, which makes the plugin's process end by itself within
// seconds: call Stop first.
func (c *Client) Run(ctx context.Context, r RunRequest, onReport func(Report)) error {
	callCtx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream if the plugin is still talking
	stream, err := c.rpc.Run(callCtx, &pluginv1.RunRequest{
		Facts: factsToWire(r.Facts), Kubeconfig: r.Kubeconfig, Config: r.Config, StateDir: r.StateDir,
		ServingCert: r.ServingCert, ServingKey: r.ServingKey,
	}, callOptions()...)
	if err != nil {
		return callError(ctx, "run component", err)
	}
	for {
		w, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return callError(ctx, "run component", err)
		}
		report, err := reportFromWire(w)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if report != nil {
			onReport(report)
		}
	}
}

// Stop asks the component to end its Run and waits until it has, or until ctx ends. The
// process goes on, for the caller to end.
func (c *Client) Stop(ctx context.Context) error {
	_, err := c.rpc.Stop(ctx, &pluginv1.StopRequest{}, callOptions()...)
	return callError(ctx, "stop component", err)
}

// Metrics asks a running component for its metrics, in Prometheus' text exposition format;
// nothing in them was checked. It is ErrUnsupported where the plugin's Info lacks
// sdk.AbilityMetrics.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	r, err := c.rpc.Metrics(ctx, &pluginv1.MetricsRequest{}, callOptions()...)
	if err != nil {
		return nil, callError(ctx, "ask for metrics", err)
	}
	return r.GetText(), nil
}

// CleanupRequest is what is known when a component's traces are to be removed.
type CleanupRequest struct {
	Facts    sdk.Facts
	Config   json.RawMessage
	StateDir string
}

// Cleanup asks the component, in a process in which Run was not called, to remove from
// the host what it may have left there.
func (c *Client) Cleanup(ctx context.Context, r CleanupRequest) error {
	_, err := c.rpc.Cleanup(ctx, &pluginv1.CleanupRequest{
		Facts: factsToWire(r.Facts), Config: r.Config, StateDir: r.StateDir,
	}, callOptions()...)
	return callError(ctx, "clean up", err)
}

// callError turns a gRPC error into one that callers can decide on.
func callError(ctx context.Context, verb string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", verb, context.Cause(ctx))
	}
	message := text.Clean(status.Convert(err).Message(), maxError)
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", verb, ErrGone)
	case codes.Unimplemented:
		return fmt.Errorf("%s: %w", verb, ErrUnsupported)
	case codes.ResourceExhausted:
		return fmt.Errorf("%s: %w: a message is too large: %s", verb, ErrProtocol, message)
	case codes.Internal:
		// gRPC's own word for what it can't parse, and the SDK's for an invalid Info.
		if strings.Contains(message, "stream terminated by RST_STREAM") {
			return fmt.Errorf("%s: %w", verb, ErrGone)
		}
		return fmt.Errorf("%s: %w: %s", verb, ErrProtocol, message)
	default:
		return fmt.Errorf("%s: %w", verb, &ComponentError{Message: message})
	}
}
