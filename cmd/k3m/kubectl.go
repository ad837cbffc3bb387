package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // as upstream's kubectl

	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
)

func kubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl",
		Short: "Run kubectl against this node's cluster",
		Long: `Run kubectl against this node's cluster.

The kubeconfig is the one that --kubeconfig or KUBECONFIG names, else the
administrator's of the node that --data-dir (as first word) or K3M_DATA_DIR names,
else ` + config.DefaultKubeconfig + `.`,
		Example: `  k3m kubectl get pods -A
  k3m kubectl --data-dir /srv/k3m get nodes`,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return runKubectl(args)
		},
	}
}

// runKubectl is upstream's main; kubectl prints its own errors and ends the process.
func runKubectl(args []string) error {
	named, args := cutNodeFlags(args)
	if kubeconfig := nodeKubeconfig(named); kubeconfig != "" {
		if _, err := os.Stat(kubeconfig); errors.Is(err, fs.ErrNotExist) && wantsServer(args) {
			return fmt.Errorf("there is no %s: no server has run here yet; start one with `k3m server`, or name its --data-dir", kubeconfig)
		}
		// Read by kubectl, in this process.
		if err := os.Setenv("KUBECONFIG", kubeconfig); err != nil {
			return err
		}
	}
	restoreKubernetesFlags()
	os.Args = append([]string{"kubectl"}, args...)
	logs.GlogSetter(cmd.GetLogVerbosity(os.Args)) //nolint:errcheck // as upstream: an odd -v is refused by the flag parser
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
	return nil
}

// cutNodeFlags takes --data-dir and --run-dir from the front of kubectl's words.
func cutNodeFlags(args []string) (node, []string) {
	var n node
	for len(args) > 0 {
		name, value, inline := strings.Cut(args[0], "=")
		if name != "--data-dir" && name != "--run-dir" {
			break
		}
		args = args[1:]
		if !inline && len(args) > 0 {
			value, args = args[0], args[1:]
		}
		if name == "--data-dir" {
			n.dataDir = value
		} else {
			n.runDir = value
		}
	}
	return n, args
}

// wantsServer tells whether kubectl's words are for a server that they don't name
// themselves.
func wantsServer(args []string) bool {
	local := []string{"help", "version", "completion", "config", "kustomize", "options", "plugin"}
	if len(args) == 0 || slices.Contains(local, args[0]) {
		return false
	}
	return !slices.ContainsFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return slices.Contains([]string{"--kubeconfig", "--server", "-s", "--help", "-h"}, name)
	})
}

// nodeKubeconfig is what KUBECONFIG should be, or "" to leave it.
func nodeKubeconfig(named node) string {
	if named.dataDir == "" && os.Getenv("KUBECONFIG") != "" {
		return ""
	}
	named.resolve()
	if named.dataDir != config.DefaultDataDir {
		return controlplane.AdminKubeconfig(named.dataDir)
	}
	if _, err := os.Stat(config.DefaultKubeconfig); err == nil {
		return config.DefaultKubeconfig
	}
	if kubeconfig := controlplane.AdminKubeconfig(named.dataDir); os.Geteuid() == 0 {
		return kubeconfig
	}
	return config.DefaultKubeconfig
}

func flagNames(into *[]string) func(*pflag.Flag) {
	return func(f *pflag.Flag) {
		if !f.Hidden {
			*into = append(*into, "--"+f.Name)
		}
	}
}
