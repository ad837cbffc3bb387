package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/k3m-io/k3m/core/atomicfile"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/datastore"
)

// What a data directory keeps of its first start, since it can't change later.

// nodeIDFile is where the ID is that --with-node-id appends.
func nodeIDFile(dataDir string) string { return filepath.Join(dataDir, "agent", "node-id") }

var nodeID = regexp.MustCompile(`^[0-9a-f]{8}$`)

// appendNodeID appends the node's ID to its name, if that is asked for.
func appendNodeID(cfg *config.Config) error {
	if !cfg.WithNodeID {
		return nil
	}
	file := nodeIDFile(cfg.DataDir)
	text, err := os.ReadFile(file)
	id := strings.TrimSpace(string(text))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		random := make([]byte, 4)
		rand.Read(random) // never fails, see its documentation
		id = hex.EncodeToString(random)
		if err := os.MkdirAll(filepath.Dir(file), 0o711); err != nil {
			return fmt.Errorf("keep the node's ID: %w", err)
		}
		if err := atomicfile.Write(file, []byte(id+"\n"), 0o600); err != nil {
			return fmt.Errorf("keep the node's ID: %w", err)
		}
	case err != nil:
		return fmt.Errorf("read the node's ID: %w", err)
	case !nodeID.MatchString(id):
		return fmt.Errorf("read the node's ID: %s does not hold eight hexadecimal digits; restore it, or remove it to have the node join under another name", file)
	}
	name := cfg.NodeName + "-" + id
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return &config.Error{Source: "--with-node-id", Message: fmt.Sprintf("%q can't be a node's name: %s; give a shorter --node-name", name, problems[0])}
	}
	cfg.NodeName = name
	return nil
}

// founding are the cluster's ranges of addresses: objects of it have addresses of them.
type founding struct {
	ClusterCIDRs []netip.Prefix `json:"clusterCIDRs"`
	ServiceCIDRs []netip.Prefix `json:"serviceCIDRs"`
}

func foundingFile(dataDir string) string { return filepath.Join(dataDir, "server", "cluster.json") }

// checkFounding refuses other ranges than those that the cluster was made with.
func checkFounding(cfg *config.Config) error {
	file := foundingFile(cfg.DataDir)
	now := founding{cfg.ClusterCIDRs, cfg.ServiceCIDRs}
	exists, err := datastore.Exists(controlplane.DatabaseFile(cfg.DataDir))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if !exists || errors.Is(err, fs.ErrNotExist) {
		text, err := json.Marshal(now)
		if err != nil {
			return err
		}
		return atomicfile.Write(file, append(text, '\n'), 0o600)
	}
	var then founding
	if err == nil {
		err = json.Unmarshal(text, &then)
	}
	if err != nil {
		return fmt.Errorf("read the cluster's ranges of addresses: %s: %w; remove the file if the configured ranges are those of the cluster", file, err)
	}
	for _, r := range []struct {
		option    string
		then, now []netip.Prefix
	}{{"cluster-cidr", then.ClusterCIDRs, now.ClusterCIDRs}, {"service-cidr", then.ServiceCIDRs, now.ServiceCIDRs}} {
		if !slices.Equal(r.then, r.now) {
			return &config.Error{Source: cfg.Source(r.option), Message: fmt.Sprintf("%s is %s, but the cluster was made with %s, and its objects have addresses of that range; "+
				"set %s back, or start a new cluster with another --data-dir", r.option, ranges(r.now), ranges(r.then), r.option)}
		}
	}
	return nil
}

func ranges(prefixes []netip.Prefix) string {
	var texts []string
	for _, p := range prefixes {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ",")
}
