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
			_, err := fmt.Fprint(cmd.OutOrStdout(), fullVersion())
			return err
		},
	}
}

func fullVersion() string {
	v := version.Get()
	return fmt.Sprintf("k3m %s (commit %s)\n%s %s/%s\n", v.GitVersion, v.GitCommit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func shortVersion() string { return version.Get().GitVersion }
