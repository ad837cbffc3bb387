package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/k3m-io/k3m/components"
)

func componentLogsCommand() *cobra.Command {
	var n node
	var follow bool
	var tail int
	c := &cobra.Command{
		Use:   "logs COMPONENT",
		Short: "Show what a component wrote",
		Long: `Show the last lines that a component wrote, also one that was disabled since. The server
keeps 128 KiB of each in memory; older lines are in its log.`,
		Example: `  k3m component logs dns
  k3m component logs -f --tail 20 cni.flannel`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if tail < -1 {
				return usageError{fmt.Errorf("--tail %d: give a number of lines, or -1 for all", tail)}
			}
			n.resolve()
			id, err := resolveRunning(cmd.Context(), n, args[0])
			if err != nil {
				if id, err = resolveKnown(n, args[0], err); err != nil {
					return err
				}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			path := fmt.Sprintf("%s?tail=%d&follow=%t", componentPath(id, "logs"), tail, follow)
			lines, err := openAdmin(ctx, n.runDir, http.MethodGet, path, nil)
			if err != nil {
				return err
			}
			defer lines.Close()
			_, err = io.Copy(cmd.OutOrStdout(), lines)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return fmt.Errorf("the server has gone: %w", err)
			}
			return nil
		},
	}
	addNodeFlags(c, &n)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what it writes from now on")
	c.Flags().IntVar(&tail, "tail", -1, "show this many lines (default: all that are kept)")
	return c
}

// resolveKnown looks among all that the distribution and the data directory have for what is
// not among the components that run. An error that is not about the name stays.
func resolveKnown(n node, word string, notRunning error) (string, error) {
	var unknown *components.SelectionError
	if !errors.As(notRunning, &unknown) {
		return "", notRunning
	}
	catalog, err := localCatalog(n)
	if err != nil {
		return "", notRunning // which tells what there is
	}
	return components.ResolveID(word, catalogIDs(catalog))
}
