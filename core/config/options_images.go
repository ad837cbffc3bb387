package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/k3m-io/k3m/registries"
)

// Snapshotters are the values of --snapshotter.
var Snapshotters = []string{"overlayfs", "native", "fuse-overlayfs"}

// imageOptions say from where images come, and how they are stored.
var imageOptions = []option{
	{name: "private-registry", usage: "file that says from where images are pulled: mirrors, credentials, certificates (default " + registries.DefaultFile + ", if it is there)",
		set: one(func(c *Config, v Value) error {
			if err := path(func(c *Config) *string { return &c.PrivateRegistry.Text })(c, []Value{v}); err != nil {
				return err
			}
			c.PrivateRegistry.Source = v.Source
			return nil
		})},
	{name: "disable-default-registry-endpoint", boolean: true, usage: "pull images of a registry that has mirrors from those alone",
		set: one(func(c *Config, v Value) error {
			var disable bool
			err := boolean(func(*Config) *bool { return &disable })(c, []Value{v})
			if disable {
				c.DisableDefaultRegistryEndpoint = v
			}
			return err
		})},
	{name: "pause-image", usage: "image of the process that holds a pod together (default: the carried one, which needs no registry)",
		set: one(func(c *Config, v Value) error {
			named, err := reference.ParseDockerRef(v.Text)
			if err != nil {
				return &Error{v.Source, fmt.Sprintf("%q is not an image's name, such as registry.example.com/pause:3.10: %v", v.Text, err)}
			}
			c.PauseImage = named.String()
			return nil
		})},
	{name: "snapshotter", usage: "how runtime.containerd stores the layers of images: " + strings.Join(Snapshotters, ", ") + " (default: overlayfs where it works, else native)",
		set: one(func(c *Config, v Value) error {
			if !slices.Contains(Snapshotters, v.Text) {
				return &Error{v.Source, fmt.Sprintf("unknown snapshotter %q%s; this distribution has %s", v.Text, DidYouMean(v.Text, Snapshotters), strings.Join(Snapshotters, ", "))}
			}
			c.Snapshotter = v
			return nil
		})},
}
