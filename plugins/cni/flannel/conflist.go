package flannel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/k3m-io/k3m/sdk"
)

const (
	// conflistName sorts before what a user may add, and after what a user wants first.
	conflistName = "10-flannel.conflist"
	// networkName is the CNI network's, and host-local's sub-directory.
	networkName = "flannel"
)

// conflist is the CNI network configuration list that the runtime reads: the bridge with
// addresses from host-local, host ports, and bandwidth limits. Runtimes add loopback by
// themselves. ipMasq stays off: masquerading is one rule for the cluster (filter.go),
// not one for each pod.
func conflist(p *plan, s subnets, mtu int) ([]byte, error) {
	type object = map[string]any
	ranges := [][]object{}
	for _, cidr := range s.list() {
		ranges = append(ranges, []object{{"subnet": cidr.String(), "gateway": gateway(cidr).Addr().String()}})
	}
	hostPorts := "iptables"
	if p.packetFilter == sdk.NFTables {
		hostPorts = "nftables"
	}
	raw, err := json.MarshalIndent(object{
		"cniVersion": "1.0.0",
		"name":       networkName,
		"plugins": []object{
			{
				"type": "bridge", "bridge": bridgeName, "mtu": mtu,
				"isGateway": true, "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false,
				"ipam": object{"type": "host-local", "dataDir": p.addressDir(), "ranges": ranges},
			},
			{"type": "portmap", "backend": hostPorts, "capabilities": object{"portMappings": true}},
			{"type": "bandwidth", "capabilities": object{"bandwidth": true}},
		},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode CNI configuration: %w", err)
	}
	return append(raw, '\n'), nil
}

// addressDir is where host-local writes which addresses are taken.
func (p *plan) addressDir() string { return filepath.Join(p.paths.AgentDir, "cni", "networks") }

// makeAddressDir makes host-local's directory before the first pod does, so that it can be
// watched: which addresses are taken is no secret, only the files' content is. The process's
// umask would hide it.
func (p *plan) makeAddressDir() error {
	records := filepath.Join(p.addressDir(), networkName)
	err := os.MkdirAll(records, 0o755)
	for dir, mode := range map[string]os.FileMode{filepath.Dir(p.addressDir()): 0o711, p.addressDir(): 0o755, records: 0o755} {
		if err == nil {
			err = os.Chmod(dir, mode)
		}
	}
	if err != nil {
		return fmt.Errorf("make the directory of taken pod addresses: %w", err)
	}
	return nil
}

// writeConflist makes the file appear at once and whole, and leaves one that is the same
// alone: the runtime reads it again at each change.
func writeConflist(dir string, content []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the CNI configuration directory: %w", err)
	}
	path := filepath.Join(dir, conflistName)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, content) {
		return nil
	}
	if err := writeFile(path, content, 0o644); err != nil {
		return fmt.Errorf("write CNI configuration: %w", err)
	}
	return nil
}

// writeFile replaces path atomically. The file that is renamed lies in the same directory:
// containerd, which watches the CNI directory, acts when a file of it is written or renamed
// away, and not when one appears (pkg cri/server, cniNetConfSyncer). writeFile does not wait
// for the disk: all that is written with it is written anew at the next start.
func writeFile(path string, content []byte, mode os.FileMode) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temporary, content, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
