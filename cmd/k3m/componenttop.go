package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/k3m-io/k3m/components"
)

// load is what a component used over a while.
type load struct {
	ID string `json:"id"`
	// CPUPercent is of one core.
	CPUPercent float64 `json:"cpuPercent"`
	PSSBytes   int64   `json:"pssBytes"`
	Processes  int     `json:"processes"`
	Restarts   int     `json:"restarts"`
}

func componentTopCommand() *cobra.Command {
	var n node
	var output string
	var interval time.Duration
	c := &cobra.Command{
		Use:   "top",
		Short: "Show the processor time and the memory of each component",
		Long: `Show what each component of this node uses: processor time over the interval, in
percent of one core, and memory (PSS: what it shares with others is divided among them).`,
		Example: `  k3m component top
  k3m component top --interval 10s -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if interval < 100*time.Millisecond {
				return usageError{errors.New("--interval: give at least 100ms")}
			}
			n.resolve()
			loads, err := measureLoads(cmd.Context(), n, interval)
			if err != nil {
				return err
			}
			return writeOutput(cmd.OutOrStdout(), output, loads, writeLoads)
		},
	}
	addNodeFlags(c, &n)
	addOutputFlag(c, &output)
	c.Flags().DurationVar(&interval, "interval", time.Second, "how long processor time is measured")
	return c
}

// measureLoads asks twice.
func measureLoads(ctx context.Context, n node, interval time.Duration) ([]load, error) {
	var before, after []components.Usage
	if err := askAdmin(ctx, n.runDir, usagePath, &before); err != nil {
		return nil, err
	}
	select { // a load is a difference of two times
	case <-time.After(interval):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := askAdmin(ctx, n.runDir, usagePath, &after); err != nil {
		return nil, err
	}
	return loadsOf(before, after), nil
}

func loadsOf(before, after []components.Usage) []load {
	loads := []load{}
	for _, now := range after {
		l := load{ID: now.ID, PSSBytes: now.PSS, Processes: now.Processes, Restarts: now.Restarts}
		for _, then := range before {
			passed := now.Time.Sub(then.Time)
			if then.ID == now.ID && then.CPU <= now.CPU && passed > 0 { // else it has a new cgroup
				l.CPUPercent = 100 * float64(now.CPU-then.CPU) / float64(passed)
			}
		}
		loads = append(loads, l)
	}
	return loads
}

func writeLoads(w io.Writer, loads []load) error {
	t := newTable(w)
	fmt.Fprintln(t, "COMPONENT\tCPU\tMEMORY\tPROCESSES\tRESTARTS")
	var cpu float64
	var memory int64
	for _, l := range loads {
		fmt.Fprintf(t, "%s\t%.1f%%\t%s\t%d\t%d\n", l.ID, l.CPUPercent, mebibytes(l.PSSBytes), l.Processes, l.Restarts)
		cpu, memory = cpu+l.CPUPercent, memory+l.PSSBytes
	}
	fmt.Fprintf(t, "all\t%.1f%%\t%s\n", cpu, mebibytes(memory))
	return t.Flush()
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
