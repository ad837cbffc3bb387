package main

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/k3m-io/k3m/sdk"
)

func statusCommand() *cobra.Command {
	var n node
	var output string
	var watch bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show on one screen how this node fares, and what to do about what is not well",
		Long: `Show on one screen how this node fares: the parts of the core, each component, what is
not well, and what to do about it.

The exit code is 0 only when all is well, else 1.`,
		Example: `  k3m status
  k3m status --watch
  k3m status -o json | jq .problems`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			n.resolve()
			if watch {
				return watchStatus(cmd.Context(), cmd.OutOrStdout(), n, output)
			}
			var report nodeReport
			if err := askAdmin(cmd.Context(), n.runDir, statusPath, &report); err != nil {
				return err
			}
			if err := writeOutput(cmd.OutOrStdout(), output, report, writeStatus); err != nil {
				return err
			}
			if !report.Well {
				return sdk.ExitCode(1)
			}
			return nil
		},
	}
	addNodeFlags(c, &n)
	addOutputFlag(c, &output)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it again whenever something changes, until ctrl-C")
	return c
}

// clearScreen moves the cursor home and clears what is below (ECMA-48).
const clearScreen = "\x1b[H\x1b[J"

// watchStatus shows each report; a terminal shows the last alone.
func watchStatus(ctx context.Context, out io.Writer, n node, output string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	well, begun := false, false
	err := followAdmin(ctx, n.runDir, statusWatchPath, func(r nodeReport) bool {
		well, begun = r.Well, true
		if output == "table" && isTerminal(out) {
			fmt.Fprint(out, clearScreen)
		}
		if output == "yaml" {
			fmt.Fprintln(out, "---")
		}
		return writeOutput(out, output, r, writeStatus) == nil
	})
	if ctx.Err() == nil && err != nil {
		return err
	}
	if !well || !begun {
		return sdk.ExitCode(1)
	}
	return nil
}

func writeStatus(w io.Writer, r nodeReport) error {
	verdict := "all is well"
	if !r.Well {
		verb := "are"
		if len(r.Problems) == 1 {
			verb = "is"
		}
		verdict = fmt.Sprintf("%d of %d %s not well", len(r.Problems), len(r.Parts)+len(r.Components), verb)
	}
	fmt.Fprintf(w, "node %s, k3m %s, up %s: %s\n\n", r.Node, r.Version, duration.HumanDuration(time.Since(r.Started)), verdict)
	t := newTable(w)
	fmt.Fprintln(t, "PART\tSTATE\tFOR\tMESSAGE")
	for _, c := range r.Parts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", c.Part, c.State, duration.HumanDuration(time.Since(c.Since)), c.Message)
	}
	fmt.Fprintln(t, "\t\t\t")
	fmt.Fprintln(t, "COMPONENT\tSTATE\tFOR\tMESSAGE")
	for _, c := range r.Components {
		message := c.Reason
		if message == "" && c.Restarts > 0 {
			message = fmt.Sprintf("restarts: %d", c.Restarts)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", c.ID, c.State, duration.HumanDuration(time.Since(c.Since)), message)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.Problems) > 0 {
		fmt.Fprintln(w, "\nNot well:")
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "  %s: %s\n", p.What, p.Why)
		if p.Fix != "" {
			fmt.Fprintf(w, "    what to do: %s\n", p.Fix)
		}
	}
	if len(r.Later) > 0 {
		_, err := fmt.Fprintf(w, "\nChanged in the configuration, and in force after the next start: %s\n", strings.Join(r.Later, ", "))
		return err
	}
	return nil
}
