package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/version"
	"github.com/hashicorp/go-hclog"

	"github.com/k3m-io/k3m/plugins/runtime/containerd/pull"
	"github.com/k3m-io/k3m/sdk"
)

// New returns the component runtime.containerd.
func New() sdk.Plugin { return component{} }

type component struct{}

// Info says who the component is.
func (component) Info() sdk.Info {
	containerdVersion, _, _ := strings.Cut(version.Version, "+")
	return sdk.Info{
		Kind:         "runtime",
		Name:         "containerd",
		Version:      containerdVersion,
		Summary:      "containerd with runc, in the plugin's process",
		Scope:        sdk.NodeScope,
		Privileges:   sdk.Privileges{Root: true},
		ConfigSchema: configSchema,
		Commands:     commands,
	}
}

// Run serves CRI until ctx ends.
func (component) Run(ctx context.Context, host *sdk.Host) error {
	var config Config
	if err := host.DecodeConfig(&config); err != nil {
		return err
	}
	return serve(ctx, config, host.Facts(), host.Logger(), host)
}

// host is what a runtime reports to; *sdk.Host is one.
type host interface {
	health
	RuntimeReady(endpoint string)
}

// serve reports the endpoint once CRI answers there, and returns when ctx ends.
func serve(ctx context.Context, config Config, facts sdk.Facts, logger hclog.Logger, to host) error {
	if err := logThrough(logger); err != nil {
		return err
	}
	s, err := prepare(config, facts, logger)
	if err != nil {
		return err
	}
	wrong := &troubles{}
	pulls := pull.NewSettings(s.registries, config.DisableDefaultRegistryEndpoint)
	file := &registryFile{path: config.registries(), settings: pulls, troubles: wrong, log: logger, seen: unseen}
	file.load()      // before anybody can pull
	registerBridge() // the configuration asks for it
	configuration, err := s.render(ctx, s.variables(config, facts, pulls.Current()), logger)
	if err != nil {
		return err
	}
	e, err := startEngine(ctx, s, configuration, pulls.Transferrer)
	if err != nil {
		return err
	}
	defer e.stop()
	if err := removeOrphans(ctx, e, logger); err != nil {
		logger.Error("remove what a killed containerd left half made", "error", err)
	}
	images := store{client: e.bridge.client, snapshotter: s.snapshotter, cri: e.bridge.cri}
	// Before anybody can ask for a sandbox.
	if err := loadSandboxImage(ctx, images, s.sandbox); err != nil {
		return err
	}
	if err := images.setDefaultSnapshotter(ctx); err != nil {
		return err
	}
	if err := e.serve(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	to.RuntimeReady(s.endpoint())
	wrong.begin(to)

	done, err := openLedger(filepath.Join(s.root, "imported.json"))
	if err != nil {
		logger.Warn("importing all image archives again", "error", err)
	}
	var g sync.WaitGroup
	g.Go(func() { file.run(ctx) })
	g.Go(func() {
		images.labels = map[string]string{preloadedLabel: "true"}
		feed{dir: facts.Paths.ImagesDir, store: images, ledger: done, pin: config.pinPreloaded(), troubles: wrong, log: logger}.run(ctx)
	})
	g.Wait()
	return nil
}

func removeOrphans(ctx context.Context, e *engine, logger hclog.Logger) error {
	records, err := e.sandboxRecords(ctx)
	if err != nil {
		return err
	}
	s := e.settings
	return sweep{layout: s.layout, binDir: s.bin, cniDirs: []string{s.cniBinDir}, log: logger}.removeOrphans(ctx, records)
}

// prepare finds out what the host can do and makes what must be there before containerd
// starts.
func prepare(config Config, facts sdk.Facts, logger hclog.Logger) (settings, error) {
	host, err := checkHost()
	if err != nil {
		return settings{}, err
	}
	l := newLayout(facts.Paths.AgentDir, facts.Paths.RunDir)
	if err := setPath(l.bin); err != nil {
		return settings{}, err
	}
	sandbox, err := chooseSandboxImage(filepath.Join(facts.Paths.CarriedImagesDir, "pause.tar"), facts.PauseImage)
	if err != nil {
		return settings{}, err
	}
	if err := l.validate(); err != nil {
		return settings{}, err
	}
	s := settings{
		layout:     l,
		abilities:  host,
		sandbox:    sandbox,
		shimCgroup: shimCgroupOf(facts.CgroupParent),
		cniBinDir:  facts.Paths.CNIBinDir,
		cniConfDir: facts.Paths.CNIConfDir,
	}
	var reason error
	if s.snapshotter, reason = chooseSnapshotter(config.Snapshotter, s.root); reason != nil {
		if config.Snapshotter != "" {
			return settings{}, fmt.Errorf(
				"use snapshotter %s as configured: %w (leave the key out, or choose %s)", config.Snapshotter, reason, native)
		}
		logger.Warn("overlayfs is not usable here; layers of images are copied", "snapshotter", s.snapshotter, "reason", reason)
	}
	if err := createCgroup(s.shimCgroup); err != nil {
		return settings{}, err
	}
	if err := linkExecutables(s.bin, facts.Paths.BinDir); err != nil {
		return settings{}, err
	}
	logger.Info("what the host gives containers", "snapshotter", s.snapshotter, "systemdCgroup", s.systemdCgroup,
		"lowerOOMScore", s.lowerOOMScore, "apparmor", s.apparmor, "shimCgroup", s.shimCgroup)
	return s, nil
}

// setPath makes this process, and those that it starts, find executables in bin first.
// containerd looks there for the shim when it adopts a container, whose settings it does
// not ask; the shim for runc when it is asked for its features; CNI for nft or iptables.
func setPath(bin string) error {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return os.Setenv("PATH", bin+":"+path)
}

// linkExecutables makes link point to dir, at once for everybody who looks.
func linkExecutables(link, dir string) error {
	for _, name := range []string{"runc", "containerd-shim-runc-v2"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("find what containerd runs: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
		return fmt.Errorf("link the executables: %w", err)
	}
	next := link + ".next"
	err := os.Remove(next)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = os.Symlink(dir, next)
	}
	if err == nil {
		err = os.Rename(next, link)
	}
	if err != nil {
		return fmt.Errorf("link the executables: %w", err)
	}
	return nil
}
