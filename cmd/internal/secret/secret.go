// Package secret takes the join token off the command line and out of the environment
// before a long-lived process starts: a command line can be read by every user of the
// machine for as long as the process lives.
package secret

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	flag     = "--token"
	variable = "K3M_TOKEN"
)

// command is the sub-command whose --token it is: `k3m kubectl --token` is kubectl's.
const command = "server"

// Hide replaces, for the sub-command `server` alone, `--token VALUE`, `--token=VALUE` and K3M_TOKEN by `--token-fd=N` and
// K3M_TOKEN_FD, where N is a descriptor in memory that the next program inherits. It
// returns the new words and variables and whether anything was hidden: then the caller
// must exec with them.
func Hide(args, env []string) (newArgs, newEnv []string, hidden bool, err error) {
	if len(args) < 2 || args[1] != command {
		return args, env, false, nil
	}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			newArgs = append(newArgs, args[i:]...)
			break
		}
		value, ok := strings.CutPrefix(arg, flag+"=")
		if !ok && arg == flag && i+1 < len(args) {
			i++
			value, ok = args[i], true
		}
		if !ok {
			newArgs = append(newArgs, arg)
			continue
		}
		fd, err := inMemory(value)
		if err != nil {
			return nil, nil, false, err
		}
		newArgs, hidden = append(newArgs, flag+"-fd="+strconv.Itoa(fd)), true
	}
	for _, pair := range env {
		value, ok := strings.CutPrefix(pair, variable+"=")
		if !ok {
			newEnv = append(newEnv, pair)
			continue
		}
		fd, err := inMemory(value)
		if err != nil {
			return nil, nil, false, err
		}
		newEnv, hidden = append(newEnv, variable+"_FD="+strconv.Itoa(fd)), true
	}
	return newArgs, newEnv, hidden, nil
}

// Reexec starts this executable again without the secrets in its words, if there were
// any; it returns only when there were none or on an error.
func Reexec() error {
	args, env, hidden, err := Hide(os.Args, os.Environ())
	if err != nil || !hidden {
		return err
	}
	return unix.Exec("/proc/self/exe", args, env)
}

// inMemory leaves the descriptor open across exec; the next program reads and closes it.
func inMemory(text string) (int, error) {
	fd, err := unix.MemfdCreate("k3m-token", 0)
	if err != nil {
		return -1, fmt.Errorf("hide the token: %w", err)
	}
	if _, err := unix.Pwrite(fd, []byte(text), 0); err != nil {
		return -1, fmt.Errorf("hide the token: %w", err)
	}
	return fd, nil
}
