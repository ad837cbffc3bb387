package sdk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/k3m-io/k3m/sdk/internal/handshake"
)

// ExitCode is an error that a Commander returns to choose the exit code, 0 to 255, of a
// sub-command that has already said on standard error what is wrong.
type ExitCode int

// Error says the code.
func (c ExitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// serveCommand runs one sub-command in the foreground and returns the exit code.
// SIGINT and SIGTERM end its context.
func serveCommand(p Plugin, name string) int {
	paths := CommandPaths{
		DataDir: os.Getenv(handshake.EnvDataDir),
		RunDir:  os.Getenv(handshake.EnvRunDir),
		BinDir:  os.Getenv(handshake.EnvBinDir),
	}
	_ = os.Unsetenv(handshake.EnvCommand)
	info := p.Info()
	commander, ok := p.(Commander)
	if !ok || !slices.ContainsFunc(info.Commands, func(c Command) bool { return c.Name == name }) {
		fmt.Fprintf(os.Stderr, "k3m %s: component %s has no such sub-command\n", name, info.ID())
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills

	err := commander.Command(ctx, name, slices.Clone(os.Args[1:]), paths)
	var code ExitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(os.Stderr, "k3m %s: %v\n", name, err)
	return 1
}
