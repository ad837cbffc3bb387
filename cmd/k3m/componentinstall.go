package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/k3m-io/k3m/cmd/internal/bundle"
	"github.com/k3m-io/k3m/components"
)

func componentInstallCommand() *cobra.Command {
	var n node
	var yes bool
	c := &cobra.Command{
		Use:   "install FILE",
		Short: "Install a third-party plugin on this node",
		Long: `Install a third-party plugin on this node.

The plugin is run once, without privileges and without a network, to say what it is and
what it asks for. You are shown that. If you agree, the file is copied into the node's
data directory and its digest and demands are recorded: at every launch it must be the
same file and ask for the same.`,
		Example: `  sudo k3m component install ./whoami
  sudo k3m component install --yes ./whoami && sudo k3m component enable addon=whoami`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Geteuid() != 0 {
				return errors.New("installing a plugin needs root; try sudo")
			}
			dir, err := bundle.Dir()
			if err != nil {
				return err
			}
			n.resolve()
			entry, err := components.Install(cmd.Context(), components.InstallRequest{
				Inspector: components.Inspector{
					Launcher: filepath.Join(dir, "bin", "k3m-launch"), CgroupParent: cgroupParent(n.dataDir),
				},
				Path: args[0], BundleDir: dir, DataDir: n.dataDir,
				Confirm: func(e components.Entry) error {
					fmt.Fprint(cmd.OutOrStdout(), components.Describe(e))
					if yes {
						return nil
					}
					return confirm(cmd, "install it?")
				},
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "installed %s\n", entry.ID())
			return takeUp(cmd, n, entry)
		},
	}
	addNodeFlags(c, &n)
	c.Flags().BoolVar(&yes, "yes", false, "agree to what the plugin asks for")
	return c
}

func componentRemoveCommand() *cobra.Command {
	var n node
	c := &cobra.Command{
		Use:     "remove ID",
		Short:   "Remove an installed plugin from this node; its state is kept",
		Example: "  sudo k3m component remove addon.whoami",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Geteuid() != 0 {
				return errors.New("removing a plugin needs root; try sudo")
			}
			n.resolve()
			if statuses, err := componentStatuses(cmd.Context(), n); err == nil && slices.ContainsFunc(statuses, func(s components.ComponentStatus) bool { return s.ID == args[0] }) {
				return fmt.Errorf("component %s is enabled: `k3m component disable %s` first", args[0], args[0])
			}
			if err := components.Remove(n.dataDir, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", args[0])
			return nil
		},
	}
	addNodeFlags(c, &n)
	return c
}

// confirm asks the person at the terminal.
func confirm(cmd *cobra.Command, question string) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return errors.New("nobody is there to agree; add --yes if you do")
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s [y/N] ", question)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("not agreed; nothing was installed")
	}
	return nil
}

// takeUp has a server that runs the component start the file that was installed in the place of
// the one before, and says how to start one that nobody runs.
func takeUp(cmd *cobra.Command, n node, entry components.Entry) error {
	statuses, err := componentStatuses(cmd.Context(), n)
	if err != nil || !slices.ContainsFunc(statuses, func(s components.ComponentStatus) bool { return s.ID == entry.ID() }) {
		fmt.Fprintf(cmd.OutOrStdout(), "`k3m component enable %s=%s` starts it, now and at every start\n", entry.Info.Kind, entry.Info.Name)
		return nil // where no server runs, nothing has to be told
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), reloadPatience)
	defer cancel()
	var did reloadAnswer
	if err := sendAdmin(ctx, n.runDir, http.MethodPost, reloadPath, reloadRequest{}, &did); err != nil {
		var refused refusedError
		if !errors.As(err, &refused) {
			return fmt.Errorf("%w; the server may have started the new file: look at `k3m component list`", err)
		}
		return fmt.Errorf("the server goes on with the file of before: %w", err)
	}
	r := readiness{restarts: did.Restarts, told: func(s components.ComponentStatus, after time.Duration) {
		fmt.Fprintf(cmd.OutOrStdout(), "restarted %s, ready after %s\n", s.ID, after.Round(10*time.Millisecond))
	}}
	return r.await(ctx, n, time.Minute, did.Restarted)
}
