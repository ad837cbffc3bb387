package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
)

// attachment is what libcni writes down for each network that a sandbox was attached to.
type attachment struct {
	ContainerID    string         `json:"containerId"`
	Config         []byte         `json:"config"`
	IfName         string         `json:"ifName"`
	NetworkName    string         `json:"networkName"`
	NetNS          string         `json:"netns"`
	CNIArgs        [][2]string    `json:"cniArgs"`
	CapabilityArgs map[string]any `json:"capabilityArgs"`
}

// everyNetwork is a choice of removeNetworks.
func everyNetwork(string) bool { return true }

// removeNetworks detaches this node's sandboxes from their networks, as CRI would have
// done: addresses are given back, port mappings go. The records are shared by all nodes
// of a host; a sandbox is this node's if its network namespace is. Sandboxes are chosen
// by the path of that.
func (s sweep) removeNetworks(ctx context.Context, chosen func(netns string) bool) error {
	records, err := filepath.Glob(filepath.Join(libcni.CacheDir, "results", "*"))
	if err != nil {
		return err
	}
	return sideBySide(records, func(record string) error {
		raw, err := os.ReadFile(record)
		if err != nil {
			return nil //nolint:nilerr // another node's, removed meanwhile
		}
		a, ok := parseAttachment(raw)
		if !ok || !strings.HasPrefix(a.NetNS, s.state+"/") || !chosen(a.NetNS) {
			return nil
		}
		if err := s.detach(ctx, a); err != nil {
			// The cni component may be gone already, and its executables with it.
			s.log.Warn("detach a sandbox from its network", "sandbox", a.ContainerID, "network", a.NetworkName, "error", err)
		}
		if err := os.Remove(record); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the record of a sandbox's network: %w", err)
		}
		return nil
	})
}

// parseAttachment reads a record; ok means that it names a network namespace.
func parseAttachment(raw []byte) (a attachment, ok bool) {
	return a, json.Unmarshal(raw, &a) == nil && a.NetNS != ""
}

// detach runs the DEL of the network's plugins.
func (s sweep) detach(ctx context.Context, a attachment) error {
	list, err := libcni.NetworkConfFromBytes(a.Config)
	if err != nil {
		return fmt.Errorf("read the network's configuration: %w", err)
	}
	return libcni.NewCNIConfig(s.cniDirs, nil).DelNetworkList(ctx, list, &libcni.RuntimeConf{
		ContainerID:    a.ContainerID,
		NetNS:          a.NetNS,
		IfName:         a.IfName,
		Args:           a.CNIArgs,
		CapabilityArgs: a.CapabilityArgs,
	})
}
