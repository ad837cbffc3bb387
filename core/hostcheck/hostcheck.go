// Package hostcheck looks at a machine and says what of it will keep a k3m node from
// running, or will bite later, and how to mend each. It changes nothing: what has to be
// tried (interfaces, packet filter rules, mounts) is tried in namespaces that end with the
// try.
//
// Each other file holds the checks of one subject; run.go lists them all.
package hostcheck

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Level says how bad a finding is.
type Level string

// The levels, the best first.
const (
	OK      Level = "ok"
	Skipped Level = "skipped" // could not be looked at
	Warning Level = "warning" // k3m runs, but something will not work or will hurt later
	Failure Level = "failure" // k3m will not run
)

// Finding is what one check found.
type Finding struct {
	// Check is the subject's name, "ports"; several findings can have the same.
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Found is one sentence.
	Found string `json:"found"`
	// Fix says what to do about it; empty when there is nothing to mend.
	Fix string `json:"fix,omitempty"`
}

// Report is what all checks found.
type Report struct {
	// Runs is false when a finding will keep k3m from running.
	Runs     bool      `json:"runs"`
	Failures int       `json:"failures"`
	Warnings int       `json:"warnings"`
	Findings []Finding `json:"findings"`
}

// Options say which node is to run on the machine.
type Options struct {
	// DataDir and RunDir are the node's; they need not exist.
	DataDir, RunDir string
	// NodeName is the name that it will have; NodeNameGiven says that the hostname does not
	// matter because somebody chose the name.
	NodeName      string
	NodeNameGiven bool
	// PodRanges and ServiceRanges are the cluster's.
	PodRanges, ServiceRanges []netip.Prefix
	// Backend is that of the pod network: vxlan, host-gw, wireguard, or "" for another
	// network than k3m's own.
	Backend string
	// Ports are those that the node's processes want.
	Ports []Port
	// Server is the process of the server that runs on DataDir now; 0 for none.
	Server int
	// Used says that the data directory is a node's already, so that interfaces and rules
	// are likely its own.
	Used bool

	// root is "/" but in tests.
	root string
}

// Port is one that the node wants to listen on.
type Port struct {
	// Who wants it, "the API".
	Who string
	// Protocol is TCP or UDP.
	Protocol string
	// Address is where; the zero value is every address of the host.
	Address netip.Addr
	Number  uint16
	// Optional ports cost a component when they are taken, not the node.
	Optional bool
}

// maxRead bounds what is read of a file.
const maxRead = 4 << 20

// path is where a file of the host is.
func (o *Options) path(name ...string) string {
	return filepath.Join(append([]string{o.root}, name...)...)
}

// read is a file's content, without white space at its ends; "" if it can't be read.
func (o *Options) read(name ...string) string {
	f, err := os.Open(o.path(name...))
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRead))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(text))
}

// number is a file's content as a number.
func (o *Options) number(name ...string) (int64, bool) {
	n, err := strconv.ParseInt(o.read(name...), 10, 64)
	return n, err == nil
}

// exists tells whether there is such a file.
func (o *Options) exists(name ...string) bool {
	_, err := os.Stat(o.path(name...))
	return err == nil
}

// processes are the running ones with one of the names, as "name (pid 4711)".
func (o *Options) processes(names ...string) []string {
	entries, err := os.ReadDir(o.path("proc"))
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		comm := o.read("proc", e.Name(), "comm")
		for _, name := range names {
			if comm == name {
				found = append(found, name+" (pid "+e.Name()+")")
			}
		}
	}
	return found
}

// list joins words for a sentence, some of them when there are many.
func list(words []string) string {
	const most = 6
	if len(words) > most {
		return strings.Join(words[:most], ", ") + " and " + strconv.Itoa(len(words)-most) + " more"
	}
	return strings.Join(words, ", ")
}
