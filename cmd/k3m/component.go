package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/k3m-io/k3m/components"
)

func componentCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "component",
		Short: "Look after the components of this node",
		Long: `Look after the components of this node.

A component is named by its ID (dns.coredns), by KIND=NAME, by its NAME, or by its KIND
where one of that kind is meant.`,
		Example: `  k3m component list
  sudo k3m component disable servicelb
  sudo k3m component configure flannel backend=host-gw
  k3m component logs -f dns`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(componentListCommand(), componentInfoCommand(), componentLogsCommand(), componentTopCommand(),
		componentEnableCommand(), componentDisableCommand(), componentConfigureCommand(), componentRestartCommand(),
		componentInstallCommand(), componentRemoveCommand())
	return c
}

func componentListCommand() *cobra.Command {
	var n node
	var output string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the components that run on this node and how they fare",
		Example: `  k3m component list
  k3m component list -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			n.resolve()
			statuses, err := componentStatuses(cmd.Context(), n)
			if err != nil {
				return err
			}
			return writeOutput(cmd.OutOrStdout(), output, statuses, writeComponents)
		},
	}
	addNodeFlags(c, &n)
	addOutputFlag(c, &output)
	return c
}

func writeComponents(w io.Writer, statuses []components.ComponentStatus) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(t, "COMPONENT\tVERSION\tSTATE\tRESTARTS\tAGE\tPID\tREASON")
	for _, s := range statuses {
		pid := "-"
		if s.PID != 0 {
			pid = strconv.Itoa(s.PID)
		}
		reason := s.Reason
		if reason == "" && s.State != components.Ready {
			reason = s.LastError
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", s.ID, s.Version, s.State, s.Restarts,
			duration.HumanDuration(time.Since(s.Since)), pid, strings.ReplaceAll(reason, "\n", " "))
	}
	return t.Flush()
}

// resolveRunning is the ID of the selected component that a word means.
func resolveRunning(ctx context.Context, n node, word string) (string, error) {
	statuses, err := componentStatuses(ctx, n)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, s := range statuses {
		ids = append(ids, s.ID)
	}
	return components.ResolveID(word, ids)
}
