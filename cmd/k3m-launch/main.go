// Command k3m-launch starts plugins for the core with the privileges that they may have,
// and ends them when the core is gone. See package launch.
package main

import (
	"os"

	"github.com/k3m-io/k3m/components/launch"
)

func main() { os.Exit(launch.Main(os.Args)) }
