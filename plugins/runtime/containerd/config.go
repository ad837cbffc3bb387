package containerd

import "encoding/json"

// Snapshotters that a user may choose.
const (
	overlayfs = "overlayfs"
	native    = "native"
)

// Config is the component's block of the configuration file.
type Config struct {
	// Snapshotter stores the layers of images: "overlayfs", or "native", which copies
	// them and works on any filesystem. Empty is overlayfs where the kernel and the
	// filesystem allow it, else native.
	Snapshotter string `json:"snapshotter"`
}

// configSchema describes Config to the host, which refuses what does not match before
// the plugin is asked to run.
var configSchema = json.RawMessage(`{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "snapshotter": {
      "type": "string",
      "enum": ["overlayfs", "native"],
      "description": "stores the layers of images; when it is not given: overlayfs where the kernel and the filesystem allow it, else native"
    }
  }
}`)
