package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
  sudo k3m component install --yes ./whoami && sudo k3m server --enable addon=whoami`,
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
			fmt.Fprintf(cmd.OutOrStdout(), "installed %s; start it with `k3m server --enable %s=%s`\n", entry.ID(), entry.Info.Kind, entry.Info.Name)
			return nil
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
			if err := components.Remove(n.dataDir, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "removed %s; a running server keeps it until it is started again\n", args[0])
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
