// Package ledger remembers what a node made on its machine outside of its data directory, and
// what was there before it, so that a removal is complete: also after a crash half-way, and
// when an older k3m, or a component that is no longer there, made it.
//
// The ledger is the file node.json of the data directory. It is written before anything is made,
// and it is the last that a removal takes away. This file keeps it, machine.go looks at what is
// there, and sweep.go removes what nobody else did.
package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/k3m-io/k3m/core/atomicfile"
)

// fileName has been the same since there were only the first two fields in it.
const fileName = "node.json"

// maxFile bounds what is read.
const maxFile = 1 << 20

// Ledger is what is known of a node.
type Ledger struct {
	// NodeName, Kubeconfig and LocalStoragePath are those of the last start.
	NodeName         string `json:"nodeName,omitempty"`
	Kubeconfig       string `json:"kubeconfig"`
	LocalStoragePath string `json:"localStoragePath,omitempty"`
	// SnapshotDir is where the last start's snapshots of the datastore lie.
	SnapshotDir string `json:"snapshotDir,omitempty"`

	// Kubeconfigs, LocalStoragePaths and RunDirs are those of all starts, in their order.
	Kubeconfigs       []string `json:"kubeconfigs,omitempty"`
	LocalStoragePaths []string `json:"localStoragePaths,omitempty"`
	RunDirs           []string `json:"runDirs,omitempty"`
	// Releases of k3m that ran here, and Components that did, by ID.
	Releases   []string `json:"releases,omitempty"`
	Components []string `json:"components,omitempty"`
	// Before is the machine as it was before the first start; nil when that was before there
	// was a ledger.
	Before *Machine `json:"before,omitempty"`
}

// Start is what a start makes.
type Start struct {
	NodeName, DataDir, RunDir, Kubeconfig, LocalStoragePath, SnapshotDir string

	Release    string
	Components []string
}

// Record adds a start to the data directory's ledger. It is to be called before anything is made
// elsewhere, by the one that holds the data directory's lock. look is called at the first start
// of all.
func Record(s Start, look func() *Machine) error {
	l, err := Read(s.DataDir)
	first := errors.Is(err, fs.ErrNotExist)
	if err != nil && !first {
		return err
	}
	before, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if first {
		l.Before = look()
	}
	l.NodeName, l.Kubeconfig, l.LocalStoragePath, l.SnapshotDir = s.NodeName, s.Kubeconfig, s.LocalStoragePath, s.SnapshotDir
	l.Kubeconfigs = added(l.Kubeconfigs, s.Kubeconfig)
	l.LocalStoragePaths = added(l.LocalStoragePaths, s.LocalStoragePath)
	l.RunDirs = added(l.RunDirs, s.RunDir)
	l.Releases = added(l.Releases, s.Release)
	l.Components = added(l.Components, s.Components...)
	after, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	if now, err := json.Marshal(l); err == nil && string(now) == string(before) && !first {
		return nil // spares the disk
	}
	return atomicfile.Write(File(s.DataDir), append(after, '\n'), 0o600)
}

// added is a list with what it lacks; "" is nothing.
func added(list []string, more ...string) []string {
	for _, m := range more {
		if m != "" && !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	return list
}

// File is where the ledger of a data directory is.
func File(dataDir string) string { return filepath.Join(dataDir, fileName) }

// Read gives the ledger of a data directory; fs.ErrNotExist if no node was started there. One
// that can't be read counts as one that says nothing: it is no reason not to start, and a removal
// then goes by the marks of what is there.
func Read(dataDir string) (Ledger, error) {
	var l Ledger
	info, err := os.Stat(File(dataDir))
	if err != nil {
		return l, err
	}
	if info.Size() > maxFile {
		return l, nil
	}
	text, err := os.ReadFile(File(dataDir))
	if err != nil {
		return l, fmt.Errorf("read what the node has made: %w", err)
	}
	if json.Unmarshal(text, &l) != nil {
		l = Ledger{}
	}
	// What an older k3m wrote has only the last of each.
	l.Kubeconfigs = added(l.Kubeconfigs, l.Kubeconfig)
	l.LocalStoragePaths = added(l.LocalStoragePaths, l.LocalStoragePath)
	return l, nil
}

// Machine is what of a machine nodes change, as names.
type Machine struct {
	Time       time.Time `json:"time"`
	Interfaces []string  `json:"interfaces"`
	// Tables are those of nftables, "ip filter"; Chains those of iptables, "filter FORWARD".
	Tables []string `json:"tables"`
	Chains []string `json:"chains"`
	// Settings are sysctls, by their names.
	Settings map[string]string `json:"settings"`
}
