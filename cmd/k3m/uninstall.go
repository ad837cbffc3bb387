package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/cmd/internal/bundle"
	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/agent"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/ledger"
)

// madeInDataDir are the names in a data directory that are k3m's, beside its bundles;
// nothing else in it is touched. The ledger goes after them.
var madeInDataDir = []string{"agent", "components", "plugins", "server"}

// madeInRunDir are those in a run directory.
var madeInRunDir = []string{"server", "components", "containerd"}

// keptData are what --keep-data keeps of a data directory: the cluster's state, installed
// plugins, image archives that somebody put there, and what lets the node join again under its
// name.
var keptData = []string{"server", "plugins", "agent/images", "agent/node-password"}

// removal is what `k3m uninstall` was asked for.
type removal struct {
	node
	keepData bool
}

func uninstallCommand() *cobra.Command {
	var r removal
	var yes bool
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the node and its pods, and remove what it made on this machine",
		Long: `Stop the node and its pods, and remove what it made on this machine: containers,
interfaces, packet filter rules, mounts, cgroups, the data directory with the cluster's
state, and the administrator's kubeconfig. Configuration in /etc/k3m, the log file and
volumes stay.

It goes by what the node wrote down of itself (node.json of the data directory), and by
the marks of k3m's interfaces and rules: a node that was killed, a removal that was cut
short, and what an older k3m left are found too. It can be called again after a failure.

With --keep-data the cluster's state stays as well: the datastore, certificates, tokens,
installed plugins and image archives. A server that is started on it later has the same
cluster, and starts its pods anew.`,
		Example: `  sudo k3m uninstall --yes
  sudo k3m uninstall --yes --keep-data
  sudo k3m uninstall --yes --data-dir /srv/k3m --run-dir /run/k3m-2`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				what := "deletes the cluster's state"
				if r.keepData {
					what = "removes their networks and images"
				}
				return usageError{fmt.Errorf("this ends all pods of the node and %s; add --yes if you mean it", what)}
			}
			if os.Geteuid() != 0 {
				return errors.New("removing a node needs root; try sudo")
			}
			r.resolve()
			return r.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	addNodeFlags(c, &r.node)
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	c.Flags().BoolVar(&r.keepData, "keep-data", false, "keep the cluster's state, installed plugins and image archives")
	return c
}

// run goes on after a failure, so that as much as possible is removed, but keeps the data
// directory then: it is what a second try works from.
func (r removal) run(ctx context.Context, out io.Writer) error {
	made, err := ledger.Read(r.dataDir)
	// Of a node that never came as far as its ledger there is a lock.
	if _, noLock := os.Stat(controlplane.LockFile(r.dataDir)); errors.Is(err, fs.ErrNotExist) && errors.Is(noLock, fs.ErrNotExist) {
		return r.forgotten(ctx, out)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lock, err := stopServer(ctx, out, r.dataDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Release() }() // its file is gone by then

	if err := r.cleanHost(ctx, out, &made); err != nil {
		return fmt.Errorf("something could not be removed, so %s is kept for another try: %w", r.dataDir, err)
	}
	return r.removeFiles(out, &made)
}

// forgotten is for a machine whose data directory somebody removed by hand. Where there is a run
// directory, its pods may still run: every component of this distribution cleans up. Else what
// bears k3m's marks is removed, if there is anything.
func (r removal) forgotten(ctx context.Context, out io.Writer) error {
	var made ledger.Ledger
	if _, err := os.Stat(filepath.Join(r.runDir, "containerd")); err == nil {
		catalog, err := localCatalog(r.node)
		if err != nil {
			return err
		}
		made.Components = catalogIDs(catalog)
		if err := r.cleanHost(ctx, out, &made); err != nil {
			return err
		}
		return r.removeFiles(out, &made)
	}
	removed, err := made.Sweep(ctx)
	for _, what := range removed {
		fmt.Fprintf(out, "removed %s, which a node without a data directory left\n", what)
	}
	if err == nil && len(removed) == 0 {
		return fmt.Errorf("no node keeps its state in %s; name its --data-dir", r.dataDir)
	}
	return err
}

// cleanHost removes what is outside of the node's directories.
func (r removal) cleanHost(ctx context.Context, out io.Writer, made *ledger.Ledger) error {
	var errs []error
	for _, n := range r.nodes(made) {
		errs = append(errs, cleanComponents(ctx, n, made, anyComponent))
	}
	errs = append(errs, agent.Cleanup(ctx, agent.Options{DataDir: r.dataDir, CgroupRoot: kubeletCgroupRoot(r.dataDir)}))
	swept, err := made.Sweep(ctx)
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	for _, what := range swept {
		fmt.Fprintf(out, "removed %s, which no component removed\n", what)
	}
	fmt.Fprintln(out, "removed containers, interfaces, rules, mounts and cgroups")
	if changed := made.Changed(ledger.Look(ctx)); len(changed) > 0 {
		fmt.Fprintf(out, "settings of the kernel stay as they are; before k3m they were: %s\n", strings.Join(changed, " "))
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// nodes is the node with each run directory that it had.
func (r removal) nodes(made *ledger.Ledger) []node {
	all := []node{r.node}
	for _, dir := range made.RunDirs {
		if _, err := os.Stat(dir); dir != r.runDir && err == nil {
			all = append(all, node{r.dataDir, dir})
		}
	}
	return all
}

// removeFiles removes what is k3m's of the node's directories, the ledger last.
func (r removal) removeFiles(out io.Writer, made *ledger.Ledger) error {
	for _, path := range made.LocalStoragePaths {
		// Volumes are the user's: the folder goes only when there are none.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(out, "the volumes in %s stay\n", path)
		}
	}
	var errs []error
	for _, path := range made.Kubeconfigs {
		errs = append(errs, removeKubeconfig(r.dataDir, path))
	}
	for _, n := range r.nodes(made) {
		errs = append(errs, removeMade(n.runDir, madeInRunDir))
	}
	errs = append(errs, bundle.RemoveAll(filepath.Join(r.dataDir, "data")))
	var kept []string
	if r.keepData {
		kept = keptData
	}
	errs = append(errs, removeBut(r.dataDir, madeInDataDir, kept))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if dir := made.SnapshotDir; dir != "" && !strings.HasPrefix(dir, r.dataDir+"/") && exists(dir) {
		fmt.Fprintf(out, "the snapshots in %s stay\n", dir)
	}
	if r.keepData {
		fmt.Fprintf(out, "kept the cluster's state in %s; `k3m server` starts it again\n", r.dataDir)
		return nil
	}
	if err := removeMade(r.dataDir, []string{filepath.Base(ledger.File(r.dataDir))}); err != nil {
		return err
	}
	fmt.Fprintf(out, "removed what was k3m's in %s and %s\n", r.dataDir, r.runDir)
	return nil
}

// removeBut removes names from dir but for what is kept, which may be further down.
func removeBut(dir string, names, kept []string) error {
	var errs []error
	for _, name := range names {
		path := filepath.Join(dir, name)
		var below []string
		whole := false
		for _, k := range kept {
			whole = whole || k == name
			if rest, found := strings.CutPrefix(k, name+"/"); found {
				below = append(below, rest)
			}
		}
		switch {
		case whole:
		case len(below) == 0:
			errs = append(errs, os.RemoveAll(path))
		default:
			entries, err := os.ReadDir(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			var inside []string
			for _, e := range entries {
				inside = append(inside, e.Name())
			}
			errs = append(errs, removeBut(path, inside, below))
			_ = os.Remove(path) // unless something was kept
		}
	}
	return errors.Join(errs...)
}

// componentDir is what a component that ever ran has in the data directory.
func componentDir(dataDir, id string) string { return filepath.Join(dataDir, "components", id) }

// anyComponent is a choice of cleanComponents.
func anyComponent(components.Entry) bool { return true }

// cleanComponents has every chosen component that ever ran here remove its traces.
func cleanComponents(ctx context.Context, n node, made *ledger.Ledger, chosen func(components.Entry) bool) error {
	dir, err := bundle.Dir()
	if err != nil {
		return err
	}
	catalog, err := components.Discover(dir, n.dataDir)
	if err != nil {
		return err
	}
	entries := slices.DeleteFunc(catalog.Entries(), func(e components.Entry) bool {
		_, err := os.Stat(componentDir(n.dataDir, e.ID()))
		never := errors.Is(err, fs.ErrNotExist) && !slices.Contains(made.Components, e.ID())
		return never || !chosen(e)
	})
	p := &plan{cfg: &config.Config{DataDir: n.dataDir, RunDir: n.runDir, LocalStoragePath: made.LocalStoragePath}, bundle: dir}
	return components.Cleanup(ctx, components.Options{
		Selection: components.Selection{Entries: entries},
		Launcher:  p.launcher(),
		DataDir:   n.dataDir, RunDir: n.runDir, CgroupParent: cgroupParent(n.dataDir),
		Facts:  p.facts,
		Logger: hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn}),
	})
}

// removeKubeconfig removes the administrator's kubeconfig if it is still this cluster's:
// another node's may have taken its place.
func removeKubeconfig(dataDir, path string) error {
	if path == "" {
		return nil
	}
	ours, err := os.ReadFile(controlplane.AdminKubeconfig(dataDir))
	if err != nil {
		return nil //nolint:nilerr // nothing to compare with: leave the file
	}
	found, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Equal(ours, found) {
		return nil
	}
	if err := errors.Join(err, os.Remove(path)); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(path)) // k3m made the folder, unless something else is in it
	return nil
}

// removeMade removes names from dir, and dir if nothing else is in it.
func removeMade(dir string, names []string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
