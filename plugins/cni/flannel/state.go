package flannel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/k3m-io/k3m/sdk"
)

// state is what a run writes down for the next one and for Cleanup, in network.json of
// the state directory, before it changes the host.
type state struct {
	// Version is that of the component that wrote it.
	Version      string           `json:"version"`
	Backend      string           `json:"backend"`
	PacketFilter sdk.PacketFilter `json:"packetFilter"`
	ClusterCIDRs []netip.Prefix   `json:"clusterCIDRs"`
	PodCIDRs     []netip.Prefix   `json:"podCIDRs"`
	// Rules are the iptables rules as the kernel lists them once they are in place;
	// empty before, and with nftables. See filter.go.
	Rules []string `json:"rules,omitempty"`
}

func statePath(stateDir string) string { return filepath.Join(stateDir, "network.json") }

// stateOf is what plan and subnets amount to.
func stateOf(p *plan, s subnets) state {
	st := state{Version: version, Backend: p.Backend, PacketFilter: p.packetFilter, PodCIDRs: s.list()}
	for _, cidr := range []netip.Prefix{p.cluster4, p.cluster6} {
		if cidr.IsValid() {
			st.ClusterCIDRs = append(st.ClusterCIDRs, cidr)
		}
	}
	return st
}

// sameRules says whether a run with the state before would make the same rules.
func (st state) sameRules(before state) bool {
	return st.Version == before.Version && st.PacketFilter == before.PacketFilter &&
		slices.Equal(st.ClusterCIDRs, before.ClusterCIDRs) && slices.Equal(st.PodCIDRs, before.PodCIDRs)
}

// loadState returns the zero state when there is none, or none that can be read: it is
// only ever a memory of what the host shows too.
func loadState(stateDir string) (state, error) {
	var st state
	raw, err := os.ReadFile(statePath(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &st)
	}
	if err != nil {
		return state{}, fmt.Errorf("read what the last run left: %w", err)
	}
	return st, nil
}

func (st state) save(stateDir string) error {
	raw, err := json.MarshalIndent(st, "", "  ")
	if err == nil {
		err = writeFile(statePath(stateDir), append(raw, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write down what this run makes: %w", err)
	}
	return nil
}
