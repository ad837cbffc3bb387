package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
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
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(componentListCommand(), componentInfoCommand(), componentLogsCommand(), componentTopCommand(),
		componentEnableCommand(), componentDisableCommand(), componentConfigureCommand(), componentRestartCommand(),
		componentInstallCommand(), componentRemoveCommand(), componentDashboardCommand())
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
	t := newTable(w)
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
	return components.ResolveID(word, statusIDs(statuses))
}

func statusIDs(statuses []components.ComponentStatus) []string {
	var ids []string
	for _, s := range statuses {
		ids = append(ids, s.ID)
	}
	return ids
}

// resolveEnabled is the ID of the component among those that are enabled that a word means; of
// one that is not, the error says how to enable it.
func resolveEnabled(n node, word string, enabled []string) (string, error) {
	id, notEnabled := components.ResolveID(word, enabled)
	if notEnabled == nil {
		return id, nil
	}
	id, err := resolveKnown(n, word, notEnabled)
	if err != nil {
		return "", err
	}
	return "", usageError{fmt.Errorf("%s is not enabled; `k3m component enable %s` starts it", id, strings.Replace(id, ".", "=", 1))}
}
