// Package snapshot makes, keeps and restores copies of a cluster: its datastore, and what a server
// on another machine needs to go on with it.
//
//	save.go       a copy of the datastore while it is written, checked, in one file
//	archive.go    the file: a tar archive in zstd, its description first
//	bootstrap.go  the authorities' keys in it, sealed with the join token
//	list.go       what snapshots there are
//	restore.go    putting one in the place of the datastore
//	schedule.go   making one now and then, and how many of those are kept
//
// A snapshot holds every Secret of the cluster in the clear, as the datastore does: it is root's
// alone (0600). The private keys of the cluster's authorities are in it too, and can't be read
// without the token's secret, so that a lost snapshot is not a lost cluster authority.
package snapshot

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"
)

// Reasons for which snapshots are made.
const (
	OnDemand  = "on-demand"
	Scheduled = "scheduled"
)

// Options say where a node's snapshots are and what they are of.
type Options struct {
	// Dir is where snapshots lie; it is made with mode 0700.
	Dir string
	// Database is the datastore's file, TLSDir the folder of the cluster's authorities, TokenFile the
	// token that nodes join with, NodePasswordFile what keeps the node's name its own.
	Database, TLSDir, TokenFile, NodePasswordFile string
	// Node is the node's name, Version that of k3m: they are written into snapshots.
	Node, Version string
}

// Info describes a snapshot.
type Info struct {
	Name string `json:"name"`
	// File is where it lies; Bytes is how big it is there.
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
	Meta
	// Problem says why it can't be used, when it can't.
	Problem string `json:"problem,omitempty"`
}

// Meta is what a snapshot says of itself: its first file, snapshot.json.
type Meta struct {
	// Format is the version of the archive's form.
	Format  int       `json:"format"`
	Reason  string    `json:"reason"`
	Created time.Time `json:"created"`
	Node    string    `json:"node"`
	Version string    `json:"version"`
	// Revision is the last of the datastore in it.
	Revision int64 `json:"revision"`
	// DatabaseBytes and DatabaseSHA256 are of the copied datastore.
	DatabaseBytes  int64  `json:"databaseBytes"`
	DatabaseSHA256 string `json:"databaseSHA256"`
	// AuthorityHash says which cluster it is: the hash in the cluster's join token.
	AuthorityHash string `json:"authorityHash"`
}

// suffix is that of snapshots' files.
const suffix = ".tar.zst"

// names are what snapshots may be called: they are names of files.
var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)

// CheckName refuses what can't be a snapshot's name.
func CheckName(name string) error {
	if !names.MatchString(name) {
		return fmt.Errorf("%q can't be a snapshot's name: use letters, digits, dots, dashes and underscores", name)
	}
	return nil
}

// ErrNotFound is in the error about a snapshot that is not there.
var ErrNotFound = errors.New("no such snapshot")

func (o Options) file(name string) string { return filepath.Join(o.Dir, name+suffix) }
