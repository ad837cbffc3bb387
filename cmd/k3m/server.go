package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/logging"
)

func serverCommand() *cobra.Command {
	var printConfig bool
	c := &cobra.Command{
		Use:   "server",
		Short: "Run a server: control plane, kubelet and the chosen components",
		Long: `Run a server: control plane, kubelet and the chosen components, until SIGTERM or
ctrl-C. Pods go on running when the server stops, and are found again when it starts.

Each flag is also a key of the configuration file and an environment variable
(--node-name: node-name, K3M_NODE_NAME). The file is weaker than the environment, which
is weaker than the flags.`,
		Example: `  k3m server
  k3m server --enable cni=none
  k3m server --disable servicelb,metrics-server --kubelet-arg=max-pods=250
  k3m server --config /etc/k3m/edge.yaml
  k3m server --print-config         # what would hold, and who says so`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loader, err := config.NewLoader(cmd.Flags(), config.Environment{Lookup: os.LookupEnv, Hostname: os.Hostname})
			if err != nil {
				return err
			}
			if printConfig {
				return showConfig(cmd.OutOrStdout(), loader)
			}
			hangup := make(chan os.Signal, 1) // from here on SIGHUP does not end the process
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			// A second ctrl-C ends the process at once.
			context.AfterFunc(ctx, stop)
			return runServer(ctx, loader, hangup)
		},
	}
	config.Flags(c.Flags())
	c.Flags().BoolVar(&printConfig, "print-config", false, "print the merged configuration, with the source of each value, and start nothing")
	c.Flags().SortFlags = false
	return c
}

// showConfig prints the merged and checked configuration, and what it makes of the components.
func showConfig(out io.Writer, loader *config.Loader) error {
	cfg, err := loader.Load(nil)
	if err != nil {
		return err
	}
	plan, err := newPlan(cfg)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "# The configuration of k3m %s, merged of %s, its drop-ins, the environment and flags.\n", shortVersion(), cfg.File)
	var ids []string
	for _, info := range plan.selection.Infos() {
		ids = append(ids, info.ID())
	}
	fmt.Fprintf(out, "# Components that it selects: %s\n", strings.Join(ids, ", "))
	return cfg.Print(out)
}

// runServer checks everything that can be checked without touching the host, and then
// runs the server until ctx ends.
func runServer(ctx context.Context, loader *config.Loader, hangup <-chan os.Signal) error {
	cfg, err := loader.Load(nil)
	if err != nil {
		return err
	}
	plan, err := newPlan(cfg)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("a server needs root: it makes containers and networks; try `sudo k3m server`")
	}
	screen := bootTerminal(cfg, os.Stderr)
	log, err := logging.New(logging.Options{
		Format: cfg.LogFormat, Debug: cfg.Debug, File: cfg.LogFile, AlsoStderr: cfg.AlsoLogToStderr, Stderr: logWriter(screen, os.Stderr),
	})
	if err != nil {
		return err
	}
	defer log.Close()
	if err := log.Adopt(); err != nil {
		return err
	}
	restoreKubernetesFlags()
	debug.SetGCPercent(bootGCPercent)
	s, err := newServer(plan, loader, hangup, log, screen)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}
