package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
)

func componentCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "component",
		Short:   "Look after the components of this node",
		Example: "  k3m component list",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(componentListCommand(), componentInstallCommand(), componentRemoveCommand())
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
			write, err := outputWriter(output)
			if err != nil {
				return err
			}
			n.resolve()
			statuses, err := componentStatuses(cmd.Context(), n)
			if err != nil {
				return err
			}
			return write(cmd.OutOrStdout(), statuses)
		},
	}
	addNodeFlags(c, &n)
	c.Flags().StringVarP(&output, "output", "o", "table", "table, json or yaml")
	return c
}

func outputWriter(format string) (func(io.Writer, []components.ComponentStatus) error, error) {
	formats := map[string]func(io.Writer, []components.ComponentStatus) error{
		"table": writeComponents,
		"json": func(w io.Writer, statuses []components.ComponentStatus) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(statuses)
		},
		"yaml": func(w io.Writer, statuses []components.ComponentStatus) error {
			text, err := yaml.Marshal(statuses)
			if err != nil {
				return err
			}
			_, err = w.Write(text)
			return err
		},
	}
	write, ok := formats[format]
	if !ok {
		return nil, usageError{fmt.Errorf("-o %s: unknown format%s; one of table, json, yaml", format, config.DidYouMean(format, []string{"table", "json", "yaml"}))}
	}
	return write, nil
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
