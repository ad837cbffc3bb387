package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/k3m-io/k3m/cmd/internal/bundle"
	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/sdk"
)

// dashboardCommandName is the sub-command that a component with a dashboard serves (see sdk.Commander).
const dashboardCommandName = "dashboard"

func componentDashboardCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dashboard COMPONENT [flags of the component]",
		Short: "Open a component's dashboard on a local port",
		Long: `Open the dashboard of a component that has one, on a local port, until ctrl-C. What is
behind it is served on loopback alone, so this is run on the node. The flags after the
component are its own: --help shows them.`,
		Example: `  sudo k3m component dashboard ingress.traefik
  sudo k3m component dashboard traefik --listen 127.0.0.1:8080`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			named, rest := cutNodeFlags(args)
			if len(rest) == 0 || rest[0] == "--help" || rest[0] == "-h" {
				return cmd.Help()
			}
			named.resolve()
			catalog, err := localCatalog(named)
			if err != nil {
				return err
			}
			entry, err := withDashboard(catalog.Entries(), rest[0])
			if err != nil {
				return err
			}
			dir, err := bundle.Dir()
			if err != nil {
				return err
			}
			// The plugin's process cuts the flags that name the node again.
			return becomePlugin(dir, entry, dashboardCommandName, slices.Concat(args[:len(args)-len(rest)], rest[1:]))
		},
	}
}

// withDashboard is the component that word names, if it has a dashboard.
func withDashboard(entries []components.Entry, word string) (components.Entry, error) {
	var ids, able []string
	for _, e := range entries {
		ids = append(ids, e.ID())
		if hasDashboard(e) {
			able = append(able, e.ID())
		}
	}
	// "ingress" is the one with a dashboard, where several are there.
	id, err := components.ResolveID(word, able)
	if err != nil {
		if id, err = components.ResolveID(word, ids); err != nil {
			return components.Entry{}, err
		}
	}
	for _, e := range entries {
		if e.ID() == id && hasDashboard(e) {
			return e, nil
		}
	}
	if len(able) == 0 {
		return components.Entry{}, fmt.Errorf("component %s has no dashboard, nor has another", id)
	}
	return components.Entry{}, fmt.Errorf("component %s has no dashboard; these have: %s", id, strings.Join(able, ", "))
}

func hasDashboard(e components.Entry) bool {
	return slices.ContainsFunc(e.Info.Commands, func(c sdk.Command) bool { return c.Name == dashboardCommandName })
}
