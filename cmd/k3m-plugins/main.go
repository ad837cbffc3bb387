// Command k3m-plugins holds the built-in plugins whose dependencies agree, in one
// executable: its first argument is the ID of the component to be. Each component is a
// process of its own, with its own privileges.
package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/k3m-io/k3m/plugins/cni/flannel"
	"github.com/k3m-io/k3m/plugins/dns/coredns"
	"github.com/k3m-io/k3m/plugins/ingress/nginx"
	localpath "github.com/k3m-io/k3m/plugins/local-storage/local-path"
	"github.com/k3m-io/k3m/plugins/network-policy/nftables"
	"github.com/k3m-io/k3m/plugins/runtime/containerd"
	"github.com/k3m-io/k3m/plugins/servicelb/nodeip"
	"github.com/k3m-io/k3m/sdk"
)

// plugins are all that this executable can be.
var plugins = []func() sdk.Plugin{
	containerd.New,
	flannel.New,
	coredns.New,
	localpath.New,
	nftables.New,
	nodeip.New,
	nginx.New,
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "list" {
		for _, id := range ids() {
			fmt.Println(id)
		}
		return
	}
	for _, newPlugin := range plugins {
		plugin := newPlugin()
		if len(os.Args) > 1 && plugin.Info().ID() == os.Args[1] {
			// The plugin sees its own words, as a plugin that stands alone does.
			os.Args = slices.Delete(os.Args, 1, 2)
			sdk.Serve(plugin)
			return
		}
	}
	fmt.Fprintf(os.Stderr, "k3m-plugins: the first argument is the component to be, one of %v\n", ids())
	os.Exit(2)
}

func ids() []string {
	var all []string
	for _, newPlugin := range plugins {
		all = append(all, newPlugin().Info().ID())
	}
	return all
}
