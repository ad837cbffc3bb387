// Command k3m-bake asks the built-in plugins of a distribution that is being built who
// they are and what they ask for, and records it in the bundle:
//
//	k3m-bake -bundle dist/build/bundle
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/k3m-io/k3m/components"
)

// builtins are the components of the distribution that this repository builds.
var builtins = []components.Builtin{
	{Path: "bin/k3m-plugins", Args: []string{"runtime.containerd"}, Default: true},
	{Path: "bin/k3m-plugins", Args: []string{"cni.flannel"}, Default: true},
	{Path: "bin/k3m-plugins", Args: []string{"dns.coredns"}, Default: true},
	{Path: "bin/k3m-plugins", Args: []string{"local-storage.local-path"}, Default: true},
	{Path: "bin/k3m-metrics-server", Default: true},
	{Path: "bin/k3m-plugins", Args: []string{"network-policy.nftables"}, Default: true},
	{Path: "bin/k3m-plugins", Args: []string{"servicelb.nodeip"}, Default: true},
	{Path: "bin/k3m-traefik", Default: true},
	{Path: "bin/k3m-plugins", Args: []string{"ingress.nginx"}},
}

func main() {
	bundle := flag.String("bundle", "", "the folder of the distribution")
	flag.Parse()
	if err := bake(*bundle); err != nil {
		fmt.Fprintln(os.Stderr, "k3m-bake:", err)
		os.Exit(1)
	}
}

func bake(bundle string) error {
	bundle, err := filepath.Abs(bundle)
	if err != nil {
		return err
	}
	inspector := components.Inspector{Launcher: filepath.Join(bundle, "bin", "k3m-launch")}
	return components.BakeCatalog(context.Background(), inspector, bundle, builtins...)
}
