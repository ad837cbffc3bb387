package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// engine is containerd inside this process. There can be one in the life of a process:
// containerd releases its databases only with the process's end.
type engine struct {
	settings settings
	server   *server.Server
	bridge   *bridge
}

// startEngine makes the node's directories and initializes containerd with a configuration;
// shims that are still running are adopted here. Nobody can call it before serve. Images that
// CRI asks for are pulled by way of wrap.
func startEngine(ctx context.Context, s settings, config *srvconfig.Config, wrap func(transfer.Transferrer) transfer.Transferrer) (*engine, error) {
	if err := server.CreateTopLevelDirectories(config); err != nil {
		return nil, fmt.Errorf("make containerd's directories: %w", err)
	}
	if err := os.MkdirAll(s.shimSockets, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the shims' sockets: %w", err)
	}
	if err := prepareTempMounts(ctx, filepath.Join(s.root, "tmpmounts")); err != nil {
		return nil, err
	}
	e := &engine{settings: s, bridge: &bridge{wrap: wrap}}
	var err error
	if e.server, err = server.New(withBridge(ctx, e.bridge), config); err != nil {
		return nil, fmt.Errorf("initialize containerd: %w", err)
	}
	return e, nil
}

// prepareTempMounts keeps the mounts that containerd makes to look into images below its
// root, and removes those that a killed predecessor left.
func prepareTempMounts(ctx context.Context, dir string) error {
	if err := mount.SetTempMountLocation(dir); err != nil {
		return fmt.Errorf("set the place of temporary mounts: %w", err)
	}
	warnings, err := mount.CleanupTempMounts(0)
	if err != nil {
		log.G(ctx).WithError(err).Error("remove temporary mounts")
	}
	for _, w := range warnings {
		log.G(ctx).WithError(w).Warn("remove a temporary mount")
	}
	return nil
}

// serve opens the sockets and returns when CRI answers there.
func (e *engine) serve(ctx context.Context) error {
	if err := e.server.Start(ctx); err != nil {
		return fmt.Errorf("serve containerd: %w", err)
	}
	for _, socket := range []string{e.settings.socket, e.settings.ttrpc} {
		if err := os.Chmod(socket, 0o600); err != nil {
			return fmt.Errorf("protect containerd's socket: %w", err)
		}
	}
	ready := make(chan struct{})
	go func() {
		e.server.Wait()
		close(ready)
	}()
	select {
	case <-ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	conn, err := dialCRI(e.settings.socket)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	if _, err := runtime.NewRuntimeServiceClient(conn).Version(ctx, &runtime.VersionRequest{}); err != nil {
		return fmt.Errorf("ask CRI for its version: %w", err)
	}
	return nil
}

// stop ends all calls and closes what can be closed. Shims and containers go on.
func (e *engine) stop() { e.server.Stop() }

// hangUp closes a connection that is not needed any more; it can't matter how.
func hangUp(conn io.Closer) { _ = conn.Close() }

// dialCRI connects to the CRI socket of a node; nothing is sent yet.
func dialCRI(socket string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", socket, err)
	}
	return conn, nil
}

// bridge is what this package takes out of containerd: it is a containerd plugin of its
// own, which is given the others.
type bridge struct {
	// client calls containerd's services without a socket.
	client *client.Client
	// cri is told of images that came without it. It would hear of them from an event
	// too, but later.
	cri imageUpdater
	// wrap stands before containerd's service that pulls.
	wrap func(transfer.Transferrer) transfer.Transferrer
}

// imageUpdater is the part of CRI's image service that reads one reference anew.
type imageUpdater interface {
	UpdateImage(ctx context.Context, reference string) error
}

type bridgeKey struct{}

func withBridge(ctx context.Context, b *bridge) context.Context {
	return context.WithValue(ctx, bridgeKey{}, b)
}

const (
	bridgeType plugin.Type = "io.k3m.bridge.v1"
	bridgeURI              = string(bridgeType) + ".bridge"
)

// registerBridge adds the bridge to containerd's plugins, which are global to a process.
var registerBridge = sync.OnceFunc(func() {
	registry.Register(&plugin.Registration{
		Type: bridgeType,
		ID:   "bridge",
		Requires: []plugin.Type{
			plugins.EventPlugin, plugins.LeasePlugin, plugins.SandboxStorePlugin, plugins.TransferPlugin,
			plugins.MountManagerPlugin, plugins.ServicePlugin, plugins.CRIServicePlugin,
		},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			b, ok := ic.Context.Value(bridgeKey{}).(*bridge)
			if !ok {
				return nil, errors.New("started without withBridge")
			}
			cri, err := ic.GetByID(plugins.CRIServicePlugin, "images")
			if err != nil {
				return nil, err
			}
			if b.cri, ok = cri.(imageUpdater); !ok {
				return nil, fmt.Errorf("the image service %T has no UpdateImage", cri)
			}
			b.client, err = client.New("",
				client.WithDefaultNamespace(namespace),
				client.WithDefaultPlatform(platforms.Default()),
				client.WithInMemoryServices(ic))
			return b, err
		},
	})
	// containerd has no door for another service that pulls, but its registry shows the
	// registrations themselves to the filter of Graph.
	registry.Graph(func(r *plugin.Registration) bool {
		if r.Type == plugins.TransferPlugin {
			r.InitFn = wrapTransfer(r.InitFn)
		}
		return true
	})
})

func wrapTransfer(start func(*plugin.InitContext) (any, error)) func(*plugin.InitContext) (any, error) {
	return func(ic *plugin.InitContext) (any, error) {
		b, ok := ic.Context.Value(bridgeKey{}).(*bridge)
		if !ok {
			return nil, errors.New("started without withBridge")
		}
		inner, err := start(ic)
		if err != nil {
			return nil, err
		}
		service, ok := inner.(transfer.Transferrer)
		if !ok {
			return nil, fmt.Errorf("the transfer service %T does not transfer", inner)
		}
		return b.wrap(service), nil
	}
}
