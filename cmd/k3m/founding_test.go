package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
)

func TestNodeID(t *testing.T) {
	dir := t.TempDir()
	name := func() (string, error) {
		cfg := &config.Config{DataDir: dir, NodeName: "edge", WithNodeID: true}
		err := appendNodeID(cfg)
		return cfg.NodeName, err
	}
	first, err := name()
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := strings.CutPrefix(first, "edge-"); !ok || !nodeID.MatchString(id) {
		t.Errorf("the node is called %q", first)
	}
	if again, err := name(); err != nil || again != first {
		t.Errorf("at the second start it is called %q, %v; want %q", again, err, first)
	}
	if err := os.WriteFile(nodeIDFile(dir), []byte("Not One\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := name(); err == nil || !strings.Contains(err.Error(), nodeIDFile(dir)) {
		t.Errorf("an ID that is none: %v", err)
	}
}

func TestRangesOfAClusterStay(t *testing.T) {
	dir := t.TempDir()
	check := func(pods, services string) error {
		return checkFounding(&config.Config{DataDir: dir,
			ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix(pods)}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix(services)}})
	}
	// A start that failed before there was a cluster binds nobody.
	for _, pods := range []string{"10.42.0.0/16", "10.52.0.0/16"} {
		if err := check(pods, "10.43.0.0/16"); err != nil {
			t.Fatal(err)
		}
	}
	database := controlplane.DatabaseFile(dir)
	if err := os.MkdirAll(filepath.Dir(database), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(database, []byte("objects"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check("10.52.0.0/16", "10.43.0.0/16"); err != nil {
		t.Errorf("the same ranges: %v", err)
	}
	err := check("10.42.0.0/16", "10.43.0.0/16")
	if err == nil || !strings.Contains(err.Error(), "cluster-cidr is 10.42.0.0/16, but the cluster was made with 10.52.0.0/16") {
		t.Errorf("another range of pods: %v", err)
	}
	err = check("10.52.0.0/16", "10.44.0.0/16")
	if err == nil || !strings.Contains(err.Error(), "service-cidr is 10.44.0.0/16, but the cluster was made with 10.43.0.0/16") {
		t.Errorf("another range of services: %v", err)
	}
}
