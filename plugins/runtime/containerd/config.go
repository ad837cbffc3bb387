package containerd

import (
	"cmp"
	"encoding/json"

	"github.com/k3m-io/k3m/registries"
)

// Snapshotters that a user may choose.
const (
	overlayfs = "overlayfs"
	native    = "native"
	fuse      = "fuse-overlayfs"
)

// snapshotters are all of them.
var snapshotters = []string{overlayfs, native, fuse}

// Config is the component's block of the configuration file.
type Config struct {
	// Snapshotter stores the layers of images: "overlayfs"; "native", which copies
	// them and works on any filesystem; or "fuse-overlayfs", which needs the host's program of
	// that name. Empty is overlayfs where the kernel and the
	// filesystem allow it, else native.
	Snapshotter string `json:"snapshotter"`
	// Registries is the path of registries.yaml; empty is registries.DefaultFile. A file
	// that is not there says nothing.
	Registries string `json:"registries"`
	// DisableDefaultRegistryEndpoint asks a registry itself for nothing when it has mirrors.
	DisableDefaultRegistryEndpoint bool `json:"disableDefaultRegistryEndpoint"`
	// PinPreloaded keeps images of archives in <data-dir>/agent/images from being removed
	// when the disk gets full, as long as their archive is there; nil is true.
	PinPreloaded *bool `json:"pinPreloaded,omitempty"`
}

func (c Config) pinPreloaded() bool { return c.PinPreloaded == nil || *c.PinPreloaded }

func (c Config) registries() string { return cmp.Or(c.Registries, registries.DefaultFile) }

// configSchema describes Config to the host, which refuses what does not match before
// the plugin is asked to run.
var configSchema = json.RawMessage(`{
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "snapshotter": {
      "type": "string",
      "enum": ["overlayfs", "native", "fuse-overlayfs"],
      "description": "stores the layers of images; when it is not given: overlayfs where the kernel and the filesystem allow it, else native"
    },
    "registries": {
      "type": "string",
      "pattern": "^/",
      "description": "path of registries.yaml, which says from where images are pulled, and with what; /etc/k3m/registries.yaml when it is not given"
    },
    "disableDefaultRegistryEndpoint": {
      "type": "boolean",
      "description": "ask a registry that has mirrors in registries.yaml for nothing itself"
    },
    "pinPreloaded": {
      "type": "boolean",
      "description": "keep images that came from <data-dir>/agent/images from being removed when the disk gets full, as long as their archive is there; true when it is not given"
    }
  }
}`)
