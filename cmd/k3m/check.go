package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/datastore"
	"github.com/k3m-io/k3m/core/hostcheck"
	"github.com/k3m-io/k3m/sdk"
)

func checkCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "check",
		Short: "Check whether this machine has what a node needs, and what will be in its way",
		Long: `Check whether this machine has what a node needs: kernel, cgroups, packet filter, ports,
disk, clock, names; and what will be in its way: firewalls, overlapping networks, what
another Kubernetes left. Each finding says how to mend it. Nothing is changed, and a
server that runs is not disturbed.

The flags are those of k3m server, and the same configuration is read.

The exit code is 0 when a node will run, with or without warnings, 1 when something will
keep it from running, and 2 for a mistake in the configuration.`,
		Example: `  sudo k3m check
  sudo k3m check -o json | jq '.findings[] | select(.level != "ok")'
  sudo k3m check --flannel-backend wireguard`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			cfg, err := config.Load(cmd.Flags(), config.Environment{Lookup: os.LookupEnv, Hostname: hostname})
			if err != nil {
				return err
			}
			plan, err := newPlan(cfg)
			if err != nil {
				return err
			}
			return showCheck(cmd.Context(), cmd.OutOrStdout(), plan, output)
		},
	}
	config.Flags(c.Flags())
	addOutputFlag(c, &output)
	return c
}

// hostname is that of the machine, or a valid one in its place: that it is not valid is what
// the check is going to say.
func hostname() (string, error) {
	name, err := os.Hostname()
	if err != nil || !config.ValidNodeName(strings.ToLower(name)) {
		return placeholderName, nil //nolint:nilerr // see above
	}
	return name, nil
}

const placeholderName = "node"

func showCheck(ctx context.Context, out io.Writer, p *plan, output string) error {
	report := hostcheck.Run(ctx, p.hostOptions())
	if err := writeOutput(out, output, report, writeCheck); err != nil {
		return err
	}
	if !report.Runs {
		return sdk.ExitCode(1)
	}
	return nil
}

// hostOptions say which node is to be checked for.
func (p *plan) hostOptions() hostcheck.Options {
	cfg := p.cfg
	o := hostcheck.Options{
		DataDir: cfg.DataDir, RunDir: cfg.RunDir, NodeName: cfg.NodeName, NodeNameGiven: cfg.Given("node-name"),
		PodRanges: cfg.ClusterCIDRs, ServiceRanges: cfg.ServiceCIDRs,
		Server: serverProcess(cfg.DataDir),
	}
	_, err := os.Stat(controlplane.LockFile(cfg.DataDir))
	o.Used = err == nil
	loopback := netip.MustParseAddr("127.0.0.1")
	node := netip.Addr{} // any, when it is not known yet
	if len(cfg.NodeIPs) > 0 {
		node = cfg.NodeIPs[0]
	}
	o.Ports = []hostcheck.Port{
		{Who: "the API", Protocol: "TCP", Address: cfg.BindAddress, Number: uint16(cfg.HTTPSPort)},
		{Who: "the kubelet", Protocol: "TCP", Address: node, Number: p.kubeletPort()},
		{Who: "the kubelet's health check", Protocol: "TCP", Address: loopback, Number: 10248},
		{Who: "kube-proxy's metrics", Protocol: "TCP", Address: loopback, Number: 10249, Optional: true},
		{Who: "kube-proxy's health check", Protocol: "TCP", Address: loopback, Number: 10256, Optional: true},
	}
	for _, e := range p.selection.Entries {
		switch {
		case e.ID() == flannelID:
			o.Backend = p.flannelBackend()
			if o.Backend == "vxlan" {
				o.Ports = append(o.Ports, hostcheck.Port{Who: flannelID, Protocol: "UDP", Number: 8472})
			}
		case e.Info.Kind == "ingress":
			o.Ports = append(o.Ports, hostcheck.Port{Who: e.ID(), Protocol: "TCP", Number: 80, Optional: true},
				hostcheck.Port{Who: e.ID(), Protocol: "TCP", Number: 443, Optional: true})
		}
	}
	return o
}

// kubeletPort is the one of --kubelet-arg, or upstream's default.
func (p *plan) kubeletPort() uint16 {
	port := uint16(kubeletPort)
	for _, arg := range p.cfg.KubeletArgs {
		if value, ok := strings.CutPrefix(arg.Text, "port="); ok {
			if number, err := strconv.ParseUint(value, 10, 16); err == nil {
				port = uint16(number)
			}
		}
	}
	return port
}

// serverProcess is the server that runs on a data directory, or 0.
func serverProcess(dataDir string) int {
	file := controlplane.LockFile(dataDir)
	if _, err := os.Stat(file); err != nil {
		return 0
	}
	lock, err := datastore.AcquireLock(file)
	var locked *datastore.LockedError
	if errors.As(err, &locked) {
		return locked.PID
	}
	if err == nil {
		_ = lock.Release() // it was only a question
	}
	return 0
}

func writeCheck(w io.Writer, r hostcheck.Report) error {
	t := newTable(w)
	fmt.Fprintln(t, "\tCHECK\tFOUND")
	for _, f := range r.Findings {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Level, f.Check, f.Found)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.Failures+r.Warnings > 0 {
		fmt.Fprintln(w, "\nWhat to do:")
	}
	for _, f := range r.Findings {
		if f.Fix != "" {
			fmt.Fprintf(w, "  %s: %s\n    %s\n", f.Check, f.Found, f.Fix)
		}
	}
	verdict := "a node will run here"
	if !r.Runs {
		verdict = "a node will not run here"
	}
	_, err := fmt.Fprintf(w, "\n%s: %s, %s\n", verdict, count(r.Failures, "failure"), count(r.Warnings, "warning"))
	return err
}

// count is "1 warning", "2 warnings".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
