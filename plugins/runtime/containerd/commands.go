package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/cmd/ctr/app"
	"github.com/urfave/cli/v3"

	"github.com/k3m-io/k3m/sdk"
)

// commands are the sub-commands of k3m that this component serves.
var commands = []sdk.Command{
	{Name: "crictl", Summary: "Talk to this node's runtime through CRI (crictl)"},
	{Name: "ctr", Summary: "Talk to this node's containerd (ctr)"},
	{Name: "image", Summary: "Import and list this node's images"},
}

// Command runs `k3m <name> <args…>` against the node that paths names.
func (component) Command(ctx context.Context, name string, args []string, paths sdk.CommandPaths) error {
	switch name {
	case "crictl":
		return crictl(args, paths)
	case "ctr":
		return ctr(ctx, args, commandLayout(paths))
	case "image":
		return imageCommand(ctx, args, commandLayout(paths))
	}
	return fmt.Errorf("runtime.containerd has no command %q", name)
}

// crictl becomes the carried crictl. The node's endpoints come first, so that the user's
// own flags win.
func crictl(args []string, paths sdk.CommandPaths) error {
	path := filepath.Join(paths.BinDir, "crictl")
	endpoint := commandLayout(paths).endpoint()
	if _, err := os.Stat("/etc/crictl.yaml"); err != nil && os.Getenv("CRI_CONFIG_FILE") == "" {
		// Without a file of the host's own, crictl would say so at each call.
		if err := os.Setenv("CRI_CONFIG_FILE", os.DevNull); err != nil {
			return err
		}
	}
	argv := append([]string{"crictl", "--runtime-endpoint=" + endpoint, "--image-endpoint=" + endpoint}, args...)
	if err := syscall.Exec(path, argv, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil // not reached
}

// ctr runs containerd's own client with this node's socket and the namespace of
// Kubernetes as defaults; flags and CONTAINERD_NAMESPACE have the last word.
func ctr(ctx context.Context, args []string, l layout) error {
	root := app.New()
	for _, f := range root.Flags {
		flag, ok := f.(*cli.StringFlag)
		if !ok {
			continue
		}
		switch flag.Name {
		case "address":
			flag.Value = l.socket
		case "namespace":
			flag.Value = namespace
		}
	}
	return root.Run(ctx, append([]string{"ctr"}, args...))
}
