package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/cmd/internal/bundle"
	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/agent"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/datastore"
)

// stopPatience is how long a server that was asked to stop may take: twice what it
// promises.
const stopPatience = 20 * time.Second

// madeInDataDir are the names in a data directory that are k3m's, beside its bundles;
// nothing else in it is touched.
var madeInDataDir = []string{"server", "agent", "components", "plugins", "node.json"}

// madeInRunDir are those in a run directory.
var madeInRunDir = []string{"server", "components", "containerd"}

func uninstallCommand() *cobra.Command {
	var n node
	var yes bool
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the node and its pods, and remove what it made on this machine",
		Long: `Stop the node and its pods, and remove what it made on this machine: containers,
interfaces, packet filter rules, mounts, cgroups, the data directory with the cluster's
state, and the administrator's kubeconfig. Configuration in /etc/k3m stays.`,
		Example: `  sudo k3m uninstall --yes
  sudo k3m uninstall --yes --data-dir /srv/k3m --run-dir /run/k3m-2`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return usageError{errors.New("this ends all pods of the node and deletes the cluster's state; add --yes if you mean it")}
			}
			if os.Geteuid() != 0 {
				return errors.New("removing a node needs root; try sudo")
			}
			n.resolve()
			return uninstall(cmd.Context(), cmd.OutOrStdout(), n)
		},
	}
	addNodeFlags(c, &n)
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

// uninstall goes on after a failure, so that as much as possible is removed, but keeps
// the data directory then: it is what a second try works from.
func uninstall(ctx context.Context, out io.Writer, n node) error {
	// Its lock is the first thing that a server makes in a data directory.
	if _, err := os.Stat(controlplane.LockFile(n.dataDir)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no node keeps its state in %s; name its --data-dir", n.dataDir)
	}
	record := readNodeRecord(n)
	lock, err := stopServer(ctx, out, n.dataDir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Release() }() // its file is gone by then

	if err := errors.Join(cleanComponents(ctx, n), cleanAgent(ctx, n)); err != nil {
		return fmt.Errorf("something could not be removed, so %s is kept for another try: %w", n.dataDir, err)
	}
	fmt.Fprintln(out, "removed containers, interfaces, rules, mounts and cgroups")
	if path := record.LocalStoragePath; path != "" {
		// Volumes are the user's: the folder goes only when there are none.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(out, "the volumes in %s stay\n", path)
		}
	}
	if err := errors.Join(removeKubeconfig(n.dataDir, record.Kubeconfig), removeMade(n.runDir, madeInRunDir),
		bundle.RemoveAll(filepath.Join(n.dataDir, "data")), removeMade(n.dataDir, madeInDataDir)); err != nil {
		return err
	}
	fmt.Fprintf(out, "removed what was k3m's in %s and %s\n", n.dataDir, n.runDir)
	return nil
}

// stopServer asks a server that runs to stop and takes its place.
func stopServer(ctx context.Context, out io.Writer, dataDir string) (*datastore.Lock, error) {
	file := controlplane.LockFile(dataDir)
	lock, err := datastore.AcquireLock(file)
	var locked *datastore.LockedError
	if !errors.As(err, &locked) {
		return lock, err
	}
	if locked.PID == 0 {
		return nil, fmt.Errorf("a server runs, but %s does not say which process it is; stop it first", file)
	}
	// A descriptor of the process: its number can't come to mean another one while we wait.
	fd, err := unix.PidfdOpen(locked.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("stop the server, process %d: %w", locked.PID, err)
	}
	defer unix.Close(fd)
	fmt.Fprintf(out, "stopping the server, process %d\n", locked.PID)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return nil, fmt.Errorf("stop the server, process %d: %w", locked.PID, err)
	}
	if err := awaitExit(ctx, fd); err != nil {
		return nil, fmt.Errorf("stop the server, process %d: %w", locked.PID, err)
	}
	return datastore.AcquireLock(file)
}

// awaitExit waits until the process of a pidfd has ended: the descriptor is readable then.
func awaitExit(ctx context.Context, fd int) error {
	deadline := time.Now().Add(stopPatience)
	for {
		wait := time.Until(deadline)
		if wait <= 0 {
			return fmt.Errorf("it did not end within %s", stopPatience)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(min(wait, time.Second).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// cleanComponents has every component that ever ran here remove its traces.
func cleanComponents(ctx context.Context, n node) error {
	dir, err := bundle.Dir()
	if err != nil {
		return err
	}
	catalog, err := components.Discover(dir, n.dataDir)
	if err != nil {
		return err
	}
	entries := slices.DeleteFunc(catalog.Entries(), func(e components.Entry) bool {
		_, err := os.Stat(filepath.Join(n.dataDir, "components", e.ID()))
		return errors.Is(err, fs.ErrNotExist)
	})
	p := &plan{cfg: &config.Config{DataDir: n.dataDir, RunDir: n.runDir, LocalStoragePath: readNodeRecord(n).LocalStoragePath}, bundle: dir}
	return components.Cleanup(ctx, components.Options{
		Selection: components.Selection{Entries: entries},
		Launcher:  p.launcher(),
		DataDir:   n.dataDir, RunDir: n.runDir, CgroupParent: cgroupParent(n.dataDir),
		Facts:  p.facts,
		Logger: hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn}),
	})
}

func cleanAgent(ctx context.Context, n node) error {
	return agent.Cleanup(ctx, agent.Options{DataDir: n.dataDir, CgroupRoot: kubeletCgroupRoot(n.dataDir)})
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

// nodeRecord is what sub-commands need to know of the node of a data directory.
type nodeRecord struct {
	NodeName   string `json:"nodeName,omitempty"`
	Kubeconfig string `json:"kubeconfig"`
	// SnapshotDir is where snapshots of the datastore lie.
	SnapshotDir string `json:"snapshotDir,omitempty"`
	// LocalStoragePath is where volumes lie (see sdk.Facts).
	LocalStoragePath string `json:"localStoragePath,omitempty"`
}

func nodeRecordFile(dataDir string) string { return filepath.Join(dataDir, "node.json") }

func recordNode(cfg *config.Config) error {
	text, err := json.Marshal(nodeRecord{NodeName: cfg.NodeName, SnapshotDir: cfg.SnapshotDir, Kubeconfig: cfg.WriteKubeconfig, LocalStoragePath: cfg.LocalStoragePath})
	if err != nil {
		return err
	}
	return os.WriteFile(nodeRecordFile(cfg.DataDir), append(text, '\n'), 0o600)
}

// readNodeRecord is empty when there is none: the node then never came so far.
func readNodeRecord(n node) nodeRecord {
	var record nodeRecord
	if text, err := os.ReadFile(nodeRecordFile(n.dataDir)); err == nil {
		_ = json.Unmarshal(text, &record) // half-written: as if there were none
	}
	return record
}
