package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"

	"github.com/k3m-io/k3m/core/config"
)

// formats are the values of -o.
var formats = []string{"table", "json", "yaml"}

// addOutputFlag adds -o to a command.
func addOutputFlag(c *cobra.Command, output *string) {
	c.Flags().StringVarP(output, "output", "o", "table", "table, json or yaml")
}

// checkOutput refuses an unknown format, before anything is asked.
func checkOutput(format string) error {
	for _, known := range formats {
		if format == known {
			return nil
		}
	}
	return usageError{fmt.Errorf("-o %s: unknown format%s; one of %s", format, config.DidYouMean(format, formats), strings.Join(formats, ", "))}
}

// writeOutput writes value as JSON or YAML, or what table writes of it.
func writeOutput[T any](w io.Writer, format string, value T, table func(io.Writer, T) error) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(value)
	case "yaml":
		text, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	return table(w, value)
}

// table is a tabwriter.Writer without the blanks at the ends of lines with which that fills up.
type table struct {
	*tabwriter.Writer
	text strings.Builder
	out  io.Writer
}

func newTable(w io.Writer) *table {
	t := &table{out: w}
	t.Writer = tabwriter.NewWriter(&t.text, 0, 8, 3, ' ', 0)
	return t
}

// Flush writes what there is.
func (t *table) Flush() error {
	if err := t.Writer.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(t.text.String()) {
		if _, err := fmt.Fprintln(t.out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	t.text.Reset()
	return nil
}

// isTerminal tells whether a person looks at what is written.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
