// Command k3m runs a Kubernetes node whose parts beyond the core are components, and
// holds the commands with which an operator looks after it. It lies in the bin folder of
// an unpacked distribution (see package bundle).
//
// main.go and root.go parse, server.go and boot.go wire the core to the components,
// the other files hold one command each.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/k3m-io/k3m/cmd/internal/secret"
	"github.com/k3m-io/k3m/sdk"
)

func main() {
	if err := secret.Reexec(); err != nil {
		fmt.Fprintln(os.Stderr, "k3m:", err)
		os.Exit(1)
	}
	os.Exit(exitCode(rootCommand().Execute()))
}

// exitCode prints an error once and chooses the code: 2 for a mistake in how k3m was
// called or configured, a sub-command's own code where it has one (then it has said
// what went wrong), else 1.
func exitCode(err error) int {
	var silent sdk.ExitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &silent):
		return int(silent)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(os.Stderr, "k3m:", line)
	}
	var coded interface{ ExitCode() int }
	switch {
	case errors.As(err, &coded):
		return coded.ExitCode()
	case isMistake(err):
		return 2
	}
	return 1
}
