package traefik

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// dashboardFiles are served in the place of Traefik's own dashboard, whose files are not in its source: a page that reads
// Traefik's API.
//
//go:embed dashboard
var dashboardFiles embed.FS

// dashboardFile, in the state directory, tells the sub-command where the dashboard is.
const dashboardFile = "dashboard.json"

// dashboardAt is what it holds.
type dashboardAt struct {
	Address string `json:"address"`
}

func writeDashboardAddress(stateDir, address string) error {
	raw, err := json.Marshal(dashboardAt{address})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(stateDir, dashboardFile), raw, 0o600); err != nil {
		return fmt.Errorf("write down where the dashboard is: %w", err)
	}
	return nil
}

// readDashboardAddress is where the dashboard of the node with this data directory was at last.
func readDashboardAddress(dataDir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dataDir, "components", id, "state", dashboardFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s has not run on this node; `k3m component list` tells why", id)
	}
	if err != nil {
		return "", fmt.Errorf("find the dashboard: %w (only root may)", err)
	}
	var at dashboardAt
	if err := json.Unmarshal(raw, &at); err != nil {
		return "", fmt.Errorf("find the dashboard: %w", err)
	}
	// The component wrote it, with its own privileges; this is the user's process.
	address, err := netip.ParseAddrPort(at.Address)
	if err != nil || !address.Addr().IsLoopback() {
		return "", fmt.Errorf("find the dashboard: %.60q is no address on loopback", at.Address)
	}
	return address.String(), nil
}
