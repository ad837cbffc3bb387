package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	"k8s.io/component-base/version"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of k3m and of what it was built with",
		Example: "  k3m version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := version.Get()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "k3m %s (commit %s)\n%s %s/%s\n",
				v.GitVersion, v.GitCommit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

func shortVersion() string { return version.Get().GitVersion }
