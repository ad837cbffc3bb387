package nftables

import (
	"path/filepath"

	"github.com/k3m-io/k3m/sdk"
)

// config is the component's block of the configuration file.
type config struct {
	// AddressRecords is the directory in which the CNI plugin host-local keeps a directory
	// for each network, with a file for each address that is taken.
	AddressRecords string `json:"addressRecords"`
}

// configSchema is the JSON Schema of config, which k3m checks a block against.
const configSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "addressRecords": {
      "description": "directory of the records of the CNI plugin host-local; by default cni.flannel's, <data-dir>/agent/cni/networks",
      "type": "string", "pattern": "^/"
    }
  }
}`

// readConfig fills in the defaults.
func readConfig(host *sdk.Host) (config, error) {
	cfg := config{AddressRecords: filepath.Join(host.Facts().Paths.AgentDir, "cni", "networks")}
	err := host.DecodeConfig(&cfg)
	return cfg, err
}
