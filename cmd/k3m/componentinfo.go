package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/k3m-io/k3m/cmd/internal/bundle"
	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/sdk"
)

// componentInfo is all that is known of a component.
type componentInfo struct {
	sdk.Info `json:",inline"`
	ID       string `json:"id"`
	// Configuration are the keys that it takes.
	Configuration []components.ConfigKey `json:"configuration,omitempty"`
	// Config is the block in force, Status how it fares; both are empty when it does not run
	// on this node.
	Config json.RawMessage             `json:"config,omitempty"`
	Status *components.ComponentStatus `json:"status,omitempty"`

	entry   components.Entry
	running bool // a server, which alone knows how it fares
}

func componentInfoCommand() *cobra.Command {
	var n node
	var output string
	c := &cobra.Command{
		Use:   "info COMPONENT",
		Short: "Show what a component is, may do, takes as configuration, and how it fares",
		Long: `Show what a component is, what it may do on this machine and in the cluster, which
configuration it takes, what is in force, and how it fares. Components that are not
enabled are shown too.`,
		Example: `  k3m component info dns.coredns
  k3m component info flannel -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			n.resolve()
			info, err := findInfo(cmd.Context(), n, args[0])
			if err != nil {
				return err
			}
			return writeOutput(cmd.OutOrStdout(), output, info, writeInfo)
		},
	}
	addNodeFlags(c, &n)
	addOutputFlag(c, &output)
	return c
}

func findInfo(ctx context.Context, n node, word string) (*componentInfo, error) {
	catalog, err := localCatalog(n)
	if err != nil {
		return nil, err
	}
	statuses, err := componentStatuses(ctx, n)
	var none noServerError
	if err != nil && !errors.As(err, &none) {
		return nil, err
	}
	running := err == nil
	// "dns" is the one that runs, where several are there.
	id, err := components.ResolveID(word, statusIDs(statuses))
	if err != nil {
		if id, err = components.ResolveID(word, catalogIDs(catalog)); err != nil {
			return nil, err
		}
	}
	entry, ok := catalog.Find(id)
	if !ok {
		return nil, fmt.Errorf("component %s runs, but is not installed any more", id)
	}
	info := &componentInfo{Info: entry.Info, ID: id, entry: entry, running: running}
	if info.Configuration, err = components.ConfigKeys(entry.Info); err != nil {
		return nil, err
	}
	for _, s := range statuses {
		if s.ID == id {
			info.Status = &s
			if err := callAdmin(ctx, n.runDir, http.MethodGet, componentPath(id, "config"), &info.Config); err != nil {
				return nil, err
			}
		}
	}
	return info, nil
}

func writeInfo(w io.Writer, i *componentInfo) error {
	fmt.Fprint(w, components.Describe(i.entry))
	switch s := i.Status; {
	case s != nil:
		fmt.Fprintf(w, "  state         %s\n", strings.TrimSuffix(string(s.State)+": "+s.Reason, ": "))
		fmt.Fprintf(w, "  restarts      %d\n", s.Restarts)
		if s.LastError != "" {
			fmt.Fprintf(w, "  last error    %s\n", s.LastError)
		}
		fmt.Fprintf(w, "  configured    %s\n", i.Config)
	case !i.running:
		fmt.Fprintln(w, "  state         unknown, as no server runs; `k3m server` starts one")
	default:
		fmt.Fprintf(w, "  state         not enabled; `k3m component enable %s=%s` starts it\n", i.Kind, i.Name)
	}
	if len(i.Configuration) == 0 {
		fmt.Fprintln(w, "\nIt takes no configuration.")
		return nil
	}
	fmt.Fprintf(w, "\nConfiguration (`k3m component configure %s KEY=VALUE`):\n\n", i.ID)
	t := newTable(w)
	fmt.Fprintln(t, "  KEY\tTYPE\tDEFAULT\tALLOWED\tWHAT IT DOES")
	for _, k := range i.Configuration {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", k.Path, orDash(k.Type), orDash(string(k.Default)), orDash(k.Allowed),
			strings.Join(strings.Fields(k.Description), " "))
	}
	return t.Flush()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// localCatalog are the components of this distribution and of the node's data directory.
func localCatalog(n node) (*components.Catalog, error) {
	dir, err := bundle.Dir()
	if err != nil {
		return nil, err
	}
	return components.Discover(dir, n.dataDir)
}

func catalogIDs(catalog *components.Catalog) []string {
	var ids []string
	for _, e := range catalog.Entries() {
		ids = append(ids, e.ID())
	}
	return ids
}
