package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
)

// usageError is a command line that can't be understood.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// isMistake tells whether something else has to be asked for: on the command line or in the
// configuration, and whether this process or the server that runs found it out.
func isMistake(err error) bool {
	var usage usageError
	var config *config.Error
	var component *components.ConfigError
	var coded interface{ ExitCode() int }
	var refused refusedError
	switch {
	case errors.As(err, &usage), errors.As(err, &config), errors.As(err, &component):
		return true
	case errors.As(err, &coded):
		return coded.ExitCode() == 2
	}
	return errors.As(err, &refused) && refused.status == http.StatusBadRequest
}

func rootCommand() *cobra.Command {
	var noPlugins error // why the plugins' commands are missing
	root := &cobra.Command{
		Use:   "k3m",
		Short: "Kubernetes, made of parts that you choose",
		Long: `k3m runs a Kubernetes node from one file. The core (control plane and kubelet) is one
process; container runtime, pod network and everything else are components that
you choose with --enable and --disable.`,
		Example: `  k3m server                        # a cluster on this machine
  k3m kubectl get nodes             # look at it
  k3m component list                # what it is made of`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && noPlugins != nil {
				return fmt.Errorf("unknown command %q, unless a component brings it along: %w", args[0], noPlugins)
			}
			return noSuchCommand(cmd, args)
		},
		Version: shortVersion(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(helpCommand())
	root.SetVersionTemplate("{{.DisplayName}} {{.Version}}\n")
	// Cobra gives every command the flags of pflag's command line. Kubernetes' libraries have put
	// one there, which no command of k3m's obeys.
	pflag.CommandLine = pflag.NewFlagSet(kubernetesFlags.Name(), pflag.ContinueOnError)
	root.AddCommand(serverCommand(), statusCommand(), componentCommand(), kubectlCommand(), snapshotCommand(), versionCommand(), checkCommand(),
		supportBundleCommand(), stopCommand(), uninstallCommand(), completionCommand(), manCommand())
	plugins, err := pluginCommands(root)
	noPlugins = err
	root.AddCommand(plugins...)
	addCompletions(root)
	for _, c := range append(root.Commands(), root) {
		withUsageErrors(c)
	}
	return root
}

// kubernetesFlags is pflag's command line as the libraries of Kubernetes left it. Those get it back
// before one of them is run: see restoreKubernetesFlags.
var kubernetesFlags = pflag.CommandLine

func restoreKubernetesFlags() { pflag.CommandLine = kubernetesFlags }

// noSuchCommand refuses the words that a command which has only sub-commands was called with.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	help := strings.Replace(cmd.CommandPath(), cmd.Root().Name(), cmd.Root().Name()+" help", 1)
	return usageError{fmt.Errorf("unknown command %q%s; `%s` lists them", args[0], config.DidYouMean(args[0], names), help)}
}

// helpCommand is cobra's, but for what it does with a word that it does not know.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]...",
		Short:   "Show what a command does and which flags it has",
		Example: "  k3m help component enable",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil {
				return usageError{err}
			}
			if err := noSuchCommand(about, rest); err != nil {
				return err
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
	}
}

// withUsageErrors makes every mistake in flags or words a usageError.
func withUsageErrors(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		var flags []string
		c.Flags().VisitAll(flagNames(&flags))
		hint := ""
		if _, name, ok := strings.Cut(err.Error(), "unknown flag: --"); ok {
			hint = config.DidYouMean("--"+name, flags)
		}
		return usageError{fmt.Errorf("%w%s; `%s --help` lists the flags", err, hint, c.CommandPath())}
	})
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			if err == nil || isMistake(err) { // one that says already what to do
				return err
			}
			return usageError{fmt.Errorf("%w; it is written `%s`", err, c.UseLine())}
		}
	}
	for _, child := range c.Commands() {
		withUsageErrors(child)
	}
}

// node says which local node a sub-command is about.
type node struct{ dataDir, runDir string }

// addNodeFlags lets a sub-command find its node: flags, else the environment, else the
// configuration file, else the defaults.
func addNodeFlags(c *cobra.Command, n *node) {
	c.Flags().StringVar(&n.dataDir, "data-dir", "", "the node's data directory ("+config.Variable("data-dir")+", default "+config.DefaultDataDir+")")
	c.Flags().StringVar(&n.runDir, "run-dir", "", "the node's directory of sockets ("+config.Variable("run-dir")+", default "+config.DefaultRunDir+")")
}

// resolve fills in what no flag gave.
func (n *node) resolve() {
	args := []string{}
	if n.dataDir != "" {
		args = append(args, "--data-dir="+n.dataDir)
	}
	if n.runDir != "" {
		args = append(args, "--run-dir="+n.runDir)
	}
	n.dataDir = config.DataDir(args, os.LookupEnv)
	n.runDir = config.RunDir(args, os.LookupEnv)
}
