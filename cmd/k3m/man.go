package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"k8s.io/component-base/version"
)

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIRECTORY",
		Short: "Write manual pages of all commands into a directory",
		Long: `Write manual pages of all commands into a directory, one a command (k3m-server.1). The
directory is made when it is missing.`,
		Example: `  sudo k3m man /usr/local/share/man/man1 && man k3m-server`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			// The build's date: the same distribution writes the same pages.
			built, err := time.Parse(time.RFC3339, version.Get().BuildDate)
			if err != nil {
				built = time.Time{}
			}
			root := cmd.Root()
			for _, c := range allCommands(root) {
				c.DisableAutoGenTag = true
			}
			header := &doc.GenManHeader{Section: "1", Source: "k3m " + shortVersion(), Manual: "k3m", Date: &built}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			pages, err := filepath.Glob(filepath.Join(args[0], "k3m*.1"))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "wrote %d pages to %s\n", len(pages), args[0])
			return err
		},
	}
}
