package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/k3m-io/k3m/sdk/internal/text"
	"github.com/k3m-io/k3m/sdk/proto/pluginv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Causes of the end of Run's context, for context.Cause.
var (
	// ErrStopped means that the host asked the component to stop.
	ErrStopped = errors.New("the host asked the component to stop")
	// ErrHostLost means that the host's process is gone or has let go of the plugin.
	ErrHostLost = errors.New("the host is gone")
)

// server is the plugin's side of the wire contract.
//
//	idle ── Run ──► running ── Run returns ──► ended
//	  └──────── Stop or host lost ───────────────▲
type server struct {
	pluginv1.UnimplementedPluginServer
	plugin Plugin
	logger hclog.Logger
	lost   func() // called in its own goroutine when the Run stream breaks

	mu      sync.Mutex
	started bool // Run or Cleanup was called
	stopped error
	cancel  context.CancelCauseFunc
	ended   chan struct{} // closed when the plugin's Run has returned; nil before it is called
}

// Register adds the service of p to a gRPC server of the caller's own. It is for kits
// that drive a plugin inside a test's process; a plugin's main calls Serve. lost is
// called, at most once, in a goroutine of its own when the stream of Run breaks: a real
// process ends then.
func Register(registrar grpc.ServiceRegistrar, p Plugin, logger hclog.Logger, lost func()) {
	pluginv1.RegisterPluginServer(registrar, newServer(p, logger, lost))
}

func newServer(p Plugin, logger hclog.Logger, lost func()) *server {
	return &server{plugin: p, logger: logger, lost: lost}
}

func (s *server) Info(context.Context, *pluginv1.InfoRequest) (*pluginv1.InfoResponse, error) {
	info := Describe(s.plugin)
	if err := info.Validate(); err != nil {
		return nil, status.Errorf(codes.Internal, "%v", err)
	}
	return &pluginv1.InfoResponse{Info: infoToWire(info)}, nil
}

func (s *server) ValidateConfig(ctx context.Context, r *pluginv1.ValidateConfigRequest) (*pluginv1.ValidateConfigResponse, error) {
	raw, err := configFromWire(r.GetConfig())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	// The plugin's own check may rely on what its schema promises.
	problems := CheckConfig(Describe(s.plugin).ConfigSchema, raw)
	if v, ok := s.plugin.(ConfigValidator); ok && len(problems) == 0 {
		problems = v.ValidateConfig(ctx, raw)
	}
	response := &pluginv1.ValidateConfigResponse{}
	for _, p := range problems {
		response.Problems = append(response.Problems, &pluginv1.ConfigProblem{
			Path: text.Clean(p.Path, maxReason), Message: text.Clean(p.Message, maxReason)})
	}
	return response, nil
}

func (s *server) Run(r *pluginv1.RunRequest, stream grpc.ServerStreamingServer[pluginv1.Report]) error {
	host, err := s.newHost(r.GetFacts(), r.GetConfig(), r.GetStateDir())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	host.kubeconfig = r.GetKubeconfig()
	host.servingCert, host.servingKey = r.GetServingCert(), r.GetServingKey()
	ctx, ended, err := s.begin()
	if err != nil {
		return err
	}
	defer time.AfterFunc(settleAfter, settle).Stop()

	// A goroutine of its own, so that reports travel while Run blocks. A panic in it
	// ends the process, with its stack on stderr.
	var runErr error
	go func() {
		returned := false
		defer func() {
			if reason := recover(); reason != nil {
				panic(reason) // on this same stack: before the host could hear of an end
			}
			if !returned {
				runErr = errors.New("the component's Run left its goroutine without returning")
			}
			host.close()
			close(ended)
		}()
		runErr = s.plugin.Run(ctx, host)
		returned = true
	}()
	for {
		select {
		case <-host.wake:
			if err := send(stream, host.take()); err != nil {
				s.streamBroke()
				return err
			}
		case <-stream.Context().Done():
			s.streamBroke()
			return status.FromContextError(stream.Context().Err()).Err()
		case <-ended:
			if err := send(stream, host.take()); err != nil {
				s.streamBroke()
				return err
			}
			return runStatus(ctx, runErr)
		}
	}
}

// runStatus says on the wire how Run ended: with OK only if it was asked to.
func runStatus(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil && err == nil:
		return status.Error(codes.Unknown, "the component ended although nobody asked it to")
	case err == nil, ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))):
		return nil
	default:
		return status.Error(codes.Unknown, text.Clean(err.Error(), maxError))
	}
}

func send(stream grpc.ServerStreamingServer[pluginv1.Report], reports []*pluginv1.Report) error {
	for _, r := range reports {
		if err := stream.Send(r); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) Stop(ctx context.Context, _ *pluginv1.StopRequest) (*pluginv1.StopResponse, error) {
	select {
	case <-s.stop(ErrStopped):
		return &pluginv1.StopResponse{}, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func (s *server) Metrics(ctx context.Context, _ *pluginv1.MetricsRequest) (*pluginv1.MetricsResponse, error) {
	writer, ok := s.plugin.(MetricsWriter)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "the component has no metrics")
	}
	s.mu.Lock()
	running := s.ended != nil
	s.mu.Unlock()
	if !running {
		return nil, status.Error(codes.FailedPrecondition, "the component has no metrics before it runs")
	}
	var b limitedBuffer
	if err := writer.WriteMetrics(ctx, &b); err != nil {
		return nil, status.Error(codes.Unknown, text.Clean(err.Error(), maxError))
	}
	return &pluginv1.MetricsResponse{Text: b.Bytes()}, nil
}

// limitedBuffer takes at most MaxMetricsBytes.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > MaxMetricsBytes {
		return 0, fmt.Errorf("the metrics are larger than %d bytes", MaxMetricsBytes)
	}
	return b.Buffer.Write(p)
}

func (s *server) Cleanup(ctx context.Context, r *pluginv1.CleanupRequest) (*pluginv1.CleanupResponse, error) {
	cleaner, ok := s.plugin.(Cleaner)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "the component has nothing to clean up")
	}
	host, err := s.newHost(r.GetFacts(), r.GetConfig(), r.GetStateDir())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	host.close()
	s.mu.Lock()
	ran := s.ended != nil
	s.started = true
	s.mu.Unlock()
	if ran {
		return nil, status.Error(codes.FailedPrecondition, "clean up in a process of its own: Run was called in this one")
	}
	if err := cleaner.Cleanup(ctx, host); err != nil {
		return nil, status.Error(codes.Unknown, text.Clean(err.Error(), maxError))
	}
	return &pluginv1.CleanupResponse{}, nil
}

func (s *server) newHost(facts *pluginv1.Facts, config []byte, stateDir string) (*Host, error) {
	f, err := factsFromWire(facts)
	if err != nil {
		return nil, err
	}
	raw, err := configFromWire(config)
	if err != nil {
		return nil, err
	}
	return &Host{logger: s.logger, facts: f, config: raw, stateDir: stateDir, wake: make(chan struct{}, 1)}, nil
}

// begin moves from idle to running.
func (s *server) begin() (context.Context, chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped != nil {
		return nil, nil, status.Errorf(codes.FailedPrecondition, "run: %v", s.stopped)
	}
	if s.started {
		return nil, nil, status.Error(codes.FailedPrecondition, "run: at most one Run or Cleanup in a process")
	}
	s.started = true
	ctx, cancel := context.WithCancelCause(context.Background())
	s.cancel, s.ended = cancel, make(chan struct{})
	return ctx, s.ended, nil
}

// stop asks Run to end, now or before it begins, and returns a channel that is closed
// when it has. The first cause counts.
func (s *server) stop(cause error) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped == nil {
		s.stopped = cause
	}
	if s.ended == nil {
		none := make(chan struct{})
		close(none)
		return none
	}
	s.cancel(cause)
	return s.ended
}

// streamBroke is the end of Run's stream from the host's side.
func (s *server) streamBroke() {
	s.stop(ErrHostLost)
	go s.lost()
}
