package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/datastore"
	"github.com/k3m-io/k3m/core/ledger"
	"github.com/k3m-io/k3m/core/snapshot"
)

func snapshotCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "Save and restore the cluster's datastore",
		Long: `Save and restore the cluster's datastore.

A running server makes snapshots by itself (--snapshot-schedule). Each is one file with
the whole cluster: its objects, and the certificates of its authorities, sealed with the
join token. Keep that token (<data-dir>/server/node-token) elsewhere: a restore on another
machine needs it. Volumes and images are not in a snapshot.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(snapshotSaveCommand(), snapshotListCommand(), snapshotRestoreCommand(), snapshotDeleteCommand(), snapshotCheckCommand())
	return c
}

// snapshotNode is the node that a sub-command is about, and where its snapshots are.
type snapshotNode struct {
	node
	dir string
}

func (n *snapshotNode) addFlags(c *cobra.Command) {
	addNodeFlags(c, &n.node)
	c.Flags().StringVar(&n.dir, "snapshot-dir", "", "where snapshots lie ("+config.Variable("snapshot-dir")+", default: the node's)")
}

// options are those of the node, also when no server runs.
func (n *snapshotNode) options() (snapshot.Options, error) {
	if os.Geteuid() != 0 {
		return snapshot.Options{}, errors.New("snapshots hold the secrets of the cluster, and are root's; try sudo")
	}
	n.resolve()
	made, err := ledger.Read(n.dataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return snapshot.Options{}, err
	}
	dir := n.dir
	if dir == "" {
		dir = os.Getenv(config.Variable("snapshot-dir"))
	}
	if dir == "" {
		dir = made.SnapshotDir
	}
	if dir == "" {
		dir = config.SnapshotDir(n.dataDir)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return snapshot.Options{}, err
	}
	return snapshotOptions(n.dataDir, dir, made.NodeName), nil
}

func snapshotOptions(dataDir, dir, nodeName string) snapshot.Options {
	if nodeName == "" { // a record from before it had the name
		nodeName = "node"
	}
	return snapshot.Options{
		Dir: dir, Node: nodeName, Version: shortVersion(),
		Database: controlplane.DatabaseFile(dataDir), TLSDir: filepath.Dir(controlplane.ServerCAFile(dataDir)),
		TokenFile: controlplane.TokenFile(dataDir), NodePasswordFile: filepath.Join(dataDir, "agent", "node-password"),
	}
}

func snapshotSaveCommand() *cobra.Command {
	var n snapshotNode
	var prefix, output string
	c := &cobra.Command{
		Use:   "save",
		Short: "Make a snapshot now, whether the server runs or not",
		Long: `Make a snapshot now, whether the server runs or not. Writes to the cluster go on
meanwhile. The copy is checked whole before it counts.`,
		Example: `  sudo k3m snapshot save
  sudo k3m snapshot save --name before-upgrade`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if prefix != "" {
				if err := snapshot.CheckName(prefix); err != nil {
					return usageError{err}
				}
			}
			o, err := n.options()
			if err != nil {
				return err
			}
			info, err := saveSnapshot(cmd.Context(), n.node, o, prefix)
			if err != nil {
				return err
			}
			return writeOutput(cmd.OutOrStdout(), output, info, func(w io.Writer, info snapshot.Info) error {
				_, err := fmt.Fprintf(w, "saved %s (%s) in %s\n", info.Name, mebibytes(info.Bytes), filepath.Dir(info.File))
				return err
			})
		},
	}
	n.addFlags(c)
	addOutputFlag(c, &output)
	c.Flags().StringVar(&prefix, "name", "", "what the snapshot's name begins with (default on-demand)")
	return c
}

// saveSnapshot asks the server, or does it in its place.
func saveSnapshot(ctx context.Context, n node, o snapshot.Options, prefix string) (snapshot.Info, error) {
	lock, err := datastore.AcquireLock(controlplane.LockFile(n.dataDir))
	var locked *datastore.LockedError
	switch {
	case errors.As(err, &locked):
		var info snapshot.Info
		query := url.Values{"name": {prefix}, "dir": {o.Dir}}
		return info, sendAdmin(ctx, n.runDir, http.MethodPost, snapshotsPath+"?"+query.Encode(), nil, &info)
	case err != nil:
		return snapshot.Info{}, err
	}
	defer func() { _ = lock.Release() }() // the process ends
	return snapshot.Save(ctx, o, snapshot.OnDemand, prefix)
}

func snapshotListCommand() *cobra.Command {
	var n snapshotNode
	var output string
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the snapshots of this node, the oldest first",
		Example: `  sudo k3m snapshot list
  sudo k3m snapshot list -o json | jq -r '.[-1].name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			o, err := n.options()
			if err != nil {
				return err
			}
			all, err := snapshot.List(o)
			if err != nil {
				return err
			}
			return writeOutput(cmd.OutOrStdout(), output, all, writeSnapshots)
		},
	}
	n.addFlags(c)
	addOutputFlag(c, &output)
	return c
}

func writeSnapshots(w io.Writer, all []snapshot.Info) error {
	t := newTable(w)
	fmt.Fprintln(t, "NAME\tREASON\tAGE\tSIZE\tREVISION\tVERSION\tPROBLEM")
	for _, s := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", s.Name, s.Reason, duration.HumanDuration(time.Since(s.Created)), mebibytes(s.Bytes), s.Revision, s.Version, s.Problem)
	}
	return t.Flush()
}

func snapshotRestoreCommand() *cobra.Command {
	var n snapshotNode
	var tokenFile, output string
	c := &cobra.Command{
		Use:   "restore NAME|FILE",
		Short: "Put a snapshot in the place of the datastore; the server must not run",
		Long: `Put a snapshot in the place of the datastore. The server must not run; the datastore that
is there is kept in a folder beside the new one. The cluster is then as it was when the
snapshot was made: pods that came later are ended when the server starts.

On another machine, restore into an empty data directory, under the node's old name, and
give the token that the cluster had: with --token-file (- for standard input) or K3M_TOKEN.`,
		Example: `  sudo k3m snapshot restore scheduled-edge-1-20261125-120000
  sudo k3m snapshot restore ./before-upgrade-edge-1-20261125-093000.tar.zst --token-file ./token`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			o, err := n.options()
			if err != nil {
				return err
			}
			token, err := restoreToken(cmd.InOrStdin(), tokenFile)
			if err != nil {
				return err
			}
			lock, err := datastore.AcquireLock(controlplane.LockFile(n.dataDir))
			if err != nil {
				return fmt.Errorf("restore snapshot: %w", err)
			}
			defer func() { _ = lock.Release() }() // the process ends
			done, err := snapshot.Restore(cmd.Context(), o, args[0], token)
			if err != nil {
				return err
			}
			return writeOutput(cmd.OutOrStdout(), output, done, writeRestored)
		},
	}
	n.addFlags(c)
	addOutputFlag(c, &output)
	c.Flags().StringVar(&tokenFile, "token-file", "", "file with the token that the cluster had; - is standard input ("+config.Variable("token")+" holds the token itself)")
	return c
}

// restoreToken is what the user gave of the token, "" for nothing.
func restoreToken(in io.Reader, file string) (string, error) {
	if file == "" {
		return os.Getenv(config.Variable("token")), nil
	}
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, 4096))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func writeRestored(w io.Writer, r snapshot.Restored) error {
	fmt.Fprintf(w, "restored %s of node %s, made %s\n", r.Name, r.Node, r.Created.Local().Format(time.DateTime))
	if r.Certificates {
		fmt.Fprintln(w, "restored the certificates of the cluster and its token")
	}
	if r.Replaced != "" {
		fmt.Fprintf(w, "the datastore that was there is in %s; remove it when all is well\n", r.Replaced)
	}
	if r.Version != shortVersion() {
		fmt.Fprintf(w, "the snapshot is of k3m %s, and this is %s\n", r.Version, shortVersion())
	}
	_, err := fmt.Fprintf(w, "now start k3m, with --node-name %s\n", r.Node)
	return err
}

func snapshotDeleteCommand() *cobra.Command {
	var n snapshotNode
	c := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Delete snapshots",
		Example: `  sudo k3m snapshot delete on-demand-edge-1-20261125-093000`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := n.options()
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := snapshot.Delete(o, name); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "deleted %s\n", name)
			}
			return nil
		},
	}
	n.addFlags(c)
	return c
}

func snapshotCheckCommand() *cobra.Command {
	var n snapshotNode
	c := &cobra.Command{
		Use:   "check [NAME|FILE]...",
		Short: "Check snapshots, or without a name the datastore itself, to the last byte",
		Long: `Check snapshots, or without a name the datastore itself, to the last byte. The server may
run meanwhile.`,
		Example: `  sudo k3m snapshot check
  sudo k3m snapshot check scheduled-edge-1-20261125-120000`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := n.options()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if _, err := os.Stat(o.Database); err != nil {
					return fmt.Errorf("check datastore: %w", err)
				}
				if err := datastore.Check(cmd.Context(), o.Database, true); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "the datastore is sound")
			}
			for _, which := range args {
				info, err := snapshot.Check(cmd.Context(), o, which)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s is sound\n", info.Name)
			}
			return nil
		},
	}
	n.addFlags(c)
	return c
}
