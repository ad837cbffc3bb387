package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/logging"
)

func serverCommand() *cobra.Command {
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
  k3m server --config /etc/k3m/edge.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loader, err := config.NewLoader(cmd.Flags(), config.Environment{Lookup: os.LookupEnv, Hostname: os.Hostname})
			if err != nil {
				return err
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
	c.Flags().SortFlags = false
	return c
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
	log, err := logging.New(logging.Options{
		Format: cfg.LogFormat, Debug: cfg.Debug, File: cfg.LogFile, AlsoStderr: cfg.AlsoLogToStderr, Stderr: os.Stderr,
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
	s, err := newServer(plan, loader, hangup, log)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}
