// Command k3m-bundle is the front of the one-file distribution: it unpacks what follows
// it in its own file to <data-dir>/data/<digest>, once, and becomes bin/k3m from there.
// See package bundle for the format.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/cmd/internal/bundle"
	"github.com/k3m-io/k3m/cmd/internal/secret"
	"github.com/k3m-io/k3m/core/config"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "k3m:", err)
		os.Exit(1)
	}
}

func run() error {
	// Before anything that takes time: until then other users can read the words.
	if err := secret.Reexec(); err != nil {
		return err
	}
	payload, err := bundle.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	dir, err := unpack(payload)
	if err != nil {
		return err
	}
	if err := payload.Close(); err != nil {
		return err
	}
	return unix.Exec(filepath.Join(dir, "bin", "k3m"), os.Args, os.Environ())
}

// unpack uses the node's data directory; a user who can't write there and for whom it
// isn't unpacked yet gets a copy of their own.
func unpack(payload *bundle.Payload) (string, error) {
	dataDir := config.DataDir(os.Args[1:], os.LookupEnv)
	dir, err := payload.Unpack(filepath.Join(dataDir, "data"))
	if err == nil || os.Geteuid() == 0 || !errors.Is(err, fs.ErrPermission) {
		return dir, err
	}
	own, ownErr := config.UserDir()
	if ownErr != nil {
		return "", errors.Join(err, ownErr)
	}
	return payload.Unpack(filepath.Join(own, "data"))
}
