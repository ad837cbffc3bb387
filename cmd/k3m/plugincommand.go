package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/cmd/internal/bundle"
	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
)

// pluginCommands are the sub-commands that the components of this distribution bring
// along (k3m ctr comes from runtime.containerd). A plugin can't replace one of k3m's own
// or of another plugin. Without a catalog there are none, and the error says why; k3m's own
// commands still work.
func pluginCommands(root *cobra.Command) ([]*cobra.Command, error) {
	dir, err := bundle.Dir()
	if err != nil {
		return nil, err
	}
	catalog, err := components.Discover(dir, config.DataDir(os.Args[1:], os.LookupEnv))
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{"help": true}
	for _, c := range root.Commands() {
		taken[c.Name()] = true
	}
	var all []*cobra.Command
	for _, entry := range catalog.Entries() {
		for _, command := range entry.Info.Commands {
			if taken[command.Name] {
				continue
			}
			taken[command.Name] = true
			all = append(all, &cobra.Command{
				Use:                command.Name,
				Short:              command.Summary + " (" + entry.ID() + ")",
				DisableFlagParsing: true,
				RunE: func(_ *cobra.Command, args []string) error {
					return becomePlugin(dir, entry, command.Name, args)
				},
			})
		}
	}
	return all, nil
}

// becomePlugin replaces this process by a plugin that serves one command (see
// sdk.Commander), with the user's own terminal, environment and privileges. It returns
// only on an error.
func becomePlugin(bundleDir string, entry components.Entry, name string, args []string) error {
	named, args := cutNodeFlags(args)
	named.resolve()
	if err := entry.Verify(); err != nil {
		return err
	}
	env := append(os.Environ(), client.CommandEnv(name, sdk.CommandPaths{
		DataDir: named.dataDir, RunDir: named.runDir, BinDir: filepath.Join(bundleDir, "bin"),
	})...)
	words := append([]string{entry.Executable()}, entry.Args...)
	if err := unix.Exec(entry.Executable(), append(words, args...), env); err != nil {
		return fmt.Errorf("start %s for `k3m %s`: %w", entry.ID(), name, err)
	}
	return nil
}
