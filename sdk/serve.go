package sdk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/k3m-io/k3m/sdk/internal/handshake"
	"github.com/k3m-io/k3m/sdk/proto/pluginv1"
	"google.golang.org/grpc"
)

// endGrace is how long the process outlives its host, or a SIGTERM, for Run to return.
const endGrace = 5 * time.Second

// Serve is a plugin's main: it serves p to the k3m that started this process and does
// not return. Nothing may be written to standard output before it is called.
//
//	started by k3m         serves the wire contract until the host ends it, is lost
//	                       (5 seconds for Run to return), or SIGTERM arrives
//	started by k3m for a   runs it in the foreground (see Commander); exit code 0, 1,
//	sub-command            or an ExitCode
//	started by a person    says what this is and how it is installed; exit code 1
//
// A panic, in Run or elsewhere, ends the process with its stack on standard error and a
// non-zero code; k3m quotes it and starts the component again.
func Serve(p Plugin) {
	if name := os.Getenv(handshake.EnvCommand); name != "" {
		os.Exit(serveCommand(p, name))
	}
	if os.Getenv(handshake.CookieKey) != handshake.CookieValue {
		fmt.Fprint(os.Stderr, introduction(p.Info(), os.Args[0]))
		os.Exit(1)
	}
	os.Exit(newProcess(p).serve())
}

// introduction is for a person who started a plugin by hand.
func introduction(info Info, executable string) string {
	return fmt.Sprintf(`%s %s is a k3m plugin: %s.
It is started by k3m, not by hand. To use it:

  k3m component install %s
  k3m server --enable %s=%s
`, info.ID(), info.Version, strings.TrimSuffix(info.Summary, "."), executable, info.Kind, info.Name)
}

// process is what a plugin's process has beyond its gRPC service: standard streams, a
// lifeline, signals, and an end.
type process struct {
	logger hclog.Logger
	stderr *os.File
	stdout *os.File
	server *server
	adopt  sync.Once

	mu   sync.Mutex
	grpc *grpc.Server // nil until go-plugin asks for it

	endOnce sync.Once
}

func newProcess(p Plugin) *process {
	pr := &process{stderr: os.Stderr, stdout: os.Stdout}
	pr.logger = hclog.New(&hclog.LoggerOptions{
		Output: os.Stderr, JSONFormat: true, Level: logLevel(os.Getenv(handshake.EnvLogLevel)),
	})
	pr.server = newServer(p, pr.logger, func() { pr.end(ErrHostLost) })
	return pr
}

func logLevel(name string) hclog.Level {
	if level := hclog.LevelFromString(name); level != hclog.NoLevel {
		return level
	}
	return hclog.Info
}

// serve returns the process's exit code.
func (pr *process) serve() int {
	if err := pr.watchLifeline(); err != nil {
		fmt.Fprintf(pr.stderr, "serve plugin: %v\n", err)
		return 1
	}
	pr.watchSignals()
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			MagicCookieKey: handshake.CookieKey, MagicCookieValue: handshake.CookieValue,
		},
		VersionedPlugins: map[int]plugin.PluginSet{
			handshake.ProtocolVersion: {handshake.PluginName: &grpcPlugin{server: pr.server}},
		},
		GRPCServer: pr.newGRPCServer,
		Logger:     pr.logger,
	})
	if pr.grpcServer() == nil {
		return 1 // go-plugin has logged why it could not listen
	}
	// The gRPC server was stopped: by the host, which has asked Run to end before if it
	// is a friendly one, or by end.
	pr.end(ErrStopped)
	return 0
}

func (pr *process) newGRPCServer(options []grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append(options,
		grpc.MaxRecvMsgSize(handshake.MaxMessageBytes),
		grpc.MaxSendMsgSize(handshake.MaxMessageBytes),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			pr.adoptStreams()
			return next(ctx, r)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			pr.adoptStreams()
			return next(srv, stream)
		}),
	)...)
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.grpc = s
	return s
}

func (pr *process) grpcServer() *grpc.Server {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.grpc
}

// adoptStreams undoes, at the first call and so after the handshake, what go-plugin does
// to os.Stdout and os.Stderr: it sends them over gRPC, where hosts drop them by default
// and where a dying process's last words are lost. Both lead to the real standard error
// instead, for this process and the children that inherit descriptor 1. The environment
// that was meant for go-plugin alone is taken away from children too.
func (pr *process) adoptStreams() {
	pr.adopt.Do(func() {
		os.Stdout, os.Stderr = pr.stdout, pr.stderr
		if err := syscall.Dup3(int(pr.stderr.Fd()), int(pr.stdout.Fd()), 0); err != nil {
			pr.logger.Warn("standard output stays with the host", "error", err)
		}
		for _, variable := range os.Environ() {
			if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PLUGIN_") || name == handshake.CookieKey {
				_ = os.Unsetenv(name)
			}
		}
	})
}

// watchLifeline ends the process when the pipe that the host holds open is closed, which
// the kernel does however the host dies.
func (pr *process) watchLifeline() error {
	value := os.Getenv(handshake.EnvLifeline)
	if value == "" {
		return nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return fmt.Errorf("%s=%q is no inherited descriptor", handshake.EnvLifeline, value)
	}
	syscall.CloseOnExec(fd)
	_ = os.Unsetenv(handshake.EnvLifeline)
	file := os.NewFile(uintptr(fd), "lifeline")
	if _, err := file.Stat(); err != nil {
		return fmt.Errorf("%s=%q is no open descriptor: %w", handshake.EnvLifeline, value, err)
	}
	// The goroutine lives as long as the process.
	go func() {
		var b [64]byte
		for {
			if _, err := file.Read(b[:]); err != nil && !errors.Is(err, syscall.EINTR) {
				pr.end(ErrHostLost)
				return
			}
		}
	}()
	return nil
}

// watchSignals lets SIGTERM end the process; go-plugin ignores SIGINT, which a terminal
// sends to host and plugins alike. Being notified of SIGPIPE, unlike ignoring it, keeps
// a write to the dead host's pipe from killing this process before Run has returned, and
// leaves children's handling as it is.
func (pr *process) watchSignals() {
	terminate, pipe := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	signal.Notify(pipe, syscall.SIGPIPE)
	go func() {
		<-terminate
		pr.end(errors.New("the process was told to terminate"))
	}()
}

// end asks Run to return, stops the gRPC server, which makes serve return, and sees to
// it that the process is gone after endGrace whatever Run does.
func (pr *process) end(cause error) {
	pr.endOnce.Do(func() {
		deadline := time.AfterFunc(endGrace, func() {
			fmt.Fprintf(pr.stderr, "serve plugin: %v, and Run has not returned within %s of it\n", cause, endGrace)
			os.Exit(1)
		})
		<-pr.server.stop(cause)
		deadline.Reset(endGrace) // for the server alone, in case it hangs
		if s := pr.grpcServer(); s != nil {
			s.Stop()
		} else {
			os.Exit(0) // go-plugin is not up yet
		}
	})
}

// grpcPlugin is the go-plugin adapter.
type grpcPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	server *server
}

// GRPCServer registers the component's service.
func (g *grpcPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	pluginv1.RegisterPluginServer(s, g.server)
	return nil
}

// GRPCClient is the host's part: see package client.
func (g *grpcPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this is the plugin's side; the host's is sdk/client")
}
