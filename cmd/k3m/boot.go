package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/cmd/internal/bootscreen"
	"github.com/k3m-io/k3m/cmd/internal/bundle"
	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/agent"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/datastore"
	"github.com/k3m-io/k3m/core/health"
	"github.com/k3m-io/k3m/core/ledger"
	"github.com/k3m-io/k3m/core/logging"
	"github.com/k3m-io/k3m/sdk"
)

// server is a running node: the control plane, the agent and the supervisor of the
// components, and what hangs them together.
//
//	t=0 ─┬─ control plane ── API ready ── rights of components ── "api" ──┐
//	     ├─ components launched; runtime ── CRI endpoint ─┐                ├─ cni runs
//	     └─ agent ── joins through the API ── kubelet ◄───┘── "node" ──────┘
type server struct {
	// plan is what the server was started with; live is what of it changes.
	plan   *plan
	live   *live
	loader *config.Loader
	hangup <-chan os.Signal // reads the files again

	authorized chan struct{} // closed when the API is up and the components have their rights

	start time.Time
	log   *slog.Logger
	// logs are the last lines of each component.
	logs *logging.Recent
	// health is what the parts say of themselves.
	health *health.Board

	lock         *datastore.Lock
	snapshots    sync.Mutex // held while one is made
	controlPlane *controlplane.ControlPlane
	agent        *agent.Agent
	components   *components.Supervisor
	filter       agent.PacketFilter
	board        *board
	resolvConf   string // with the node's own name servers
	notifier     notifier
	screen       *bootscreen.Screen // nil without a terminal
}

// newServer takes the data directory and prepares the parts. The caller calls close.
func newServer(p *plan, loader *config.Loader, hangup <-chan os.Signal, log *logging.Log, screen *bootscreen.Screen) (*server, error) {
	s := &server{plan: p, live: newLive(p), loader: loader, hangup: hangup, authorized: make(chan struct{}), start: time.Now(), log: log.Logger("core"), logs: log.Recent(), health: health.NewBoard(), notifier: newNotifier(), screen: screen}
	cfg := p.cfg
	if len(cfg.NodeIPs) == 0 {
		ips, err := agent.HostIPs(cfg.Families()...)
		if err != nil {
			return nil, err
		}
		if err := cfg.SetNodeIPs(ips); err != nil {
			return nil, err
		}
	}
	if err := checkPorts(cfg); err != nil {
		return nil, heldBy(cfg.DataDir, err)
	}
	var err error
	if s.lock, err = datastore.AcquireLock(controlplane.LockFile(cfg.DataDir)); err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return appendNodeID(cfg) },
		func() error { return checkFounding(cfg) },
		func() error { return s.prepare(log) },
	} {
		if err := step(); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *server) close() {
	if s.lock != nil {
		_ = s.lock.Release() // the kernel takes it back anyway when the process ends
	}
}

func (s *server) prepare(log *logging.Log) error {
	cfg := s.plan.cfg
	if err := s.record(); err != nil {
		return err
	}
	if err := bundle.Prune(filepath.Join(cfg.DataDir, "data"), s.plan.bundle); err != nil {
		s.log.Warn("an older distribution could not be removed", "error", err)
	}
	s.expectParts()
	s.filter = agent.DetectPacketFilter(context.Background())
	if s.resolvConf = cfg.ResolvConf; s.resolvConf == "" {
		var err error
		if s.resolvConf, err = agent.ResolvConf(cfg.DataDir, s.log); err != nil {
			return err
		}
	}
	s.controlPlane = controlplane.New(controlplane.Options{
		DataDir: cfg.DataDir, RunDir: cfg.RunDir,
		NodeName: cfg.NodeName, NodeIPs: cfg.NodeIPs,
		BindAddress: cfg.BindAddress, Port: cfg.HTTPSPort, AdvertiseAddress: cfg.AdvertiseAddress,
		TLSSANs:      slices.Concat(cfg.TLSSANs, texts(cfg.NodeExternalIPs)),
		ClusterCIDRs: cfg.ClusterCIDRs, ServiceCIDRs: cfg.ServiceCIDRs, NodePorts: cfg.NodePorts.String(),
		ClusterDNS: cfg.ClusterDNS, ClusterDomain: cfg.ClusterDomain,
		KubeconfigPath: cfg.WriteKubeconfig, KubeconfigMode: cfg.KubeconfigMode, KubeconfigGID: cfg.KubeconfigGID,
		Token:     cfg.Token,
		Component: s.groups, Services: s.services,
		Sync: datastore.Sync(cfg.DatastoreSync), Health: s.health,
		Args: s.plan.args,
	})
	s.components = components.NewSupervisor(components.Options{
		Selection:    s.plan.selection,
		Launcher:     s.plan.launcher(),
		DataDir:      cfg.DataDir,
		RunDir:       cfg.RunDir,
		CgroupParent: cgroupParent(cfg.DataDir),
		Config:       s.plan.configs,
		Facts:        s.facts,
		Identity:     s.identity, ServingCertificate: s.servingCertificate,
		Logger:      log.Components(),
		StopTimeout: componentsLimit,
		Forget:      func(info sdk.Info) error { return s.agent.ForgetComponent(info.ID()) },
	})
	var err error
	s.board = newBoard()
	s.agent, err = agent.New(agent.Options{
		NodeName: cfg.NodeName, NodeIPs: cfg.NodeIPs, ExternalIPs: cfg.NodeExternalIPs, DataDir: cfg.DataDir,
		Labels: cfg.NodeLabels, Taints: cfg.NodeTaints, ProtectKernelDefaults: cfg.ProtectKernelDefaults,
		ServerURL: "https://" + netip.AddrPortFrom(controlplane.LocalAddress(cfg.BindAddress), uint16(cfg.HTTPSPort)).String(),
		TokenFile: controlplane.TokenFile(cfg.DataDir),
		ServerUp:  s.controlPlane.Joinable(), ControllersBuilt: s.controlPlane.ControllersBuilt(),
		Runtime:    s.components.Runtime,
		CgroupRoot: kubeletCgroupRoot(cfg.DataDir), PacketFilter: s.filter, ResolvConf: s.resolvConf,
		KubeletArgs: config.Texts(cfg.KubeletArgs), KubeProxyArgs: config.Texts(cfg.KubeProxyArgs),
		Health: s.health, Logger: s.log,
	})
	return err
}

// record writes down what this start is going to make: for `k3m uninstall`.
func (s *server) record() error {
	cfg := s.plan.cfg
	start := ledger.Start{
		NodeName: cfg.NodeName, DataDir: cfg.DataDir, RunDir: cfg.RunDir, Kubeconfig: cfg.WriteKubeconfig, LocalStoragePath: cfg.LocalStoragePath,
		SnapshotDir: cfg.SnapshotDir, Release: shortVersion(),
	}
	for _, e := range s.plan.selection.Entries {
		start.Components = append(start.Components, e.ID())
	}
	return ledger.Record(start, func() *ledger.Machine { return ledger.Look(context.Background()) })
}

// run runs the node until ctx ends or a part of it fails. Stopping goes against the
// start: kubelet, components, control plane. Pods stay. What changes components stops after
// them: they refuse changes then, and one under way ends with them.
func (s *server) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts := []part{
		{"control plane", s.controlPlane.Run},
		{"state of components", s.keepBoard},
		{"reload on SIGHUP", s.followSignals},
		{"admin socket", s.serveAdmin},
		{"components", s.components.Run},
		{"agent", s.agent.Run},
		{"boot", s.boot},
		{"health", s.watchHealth},
		{"snapshots", s.keepSnapshots},
		{"manifests", s.keepManifests},
		{"progress", s.showProgress},
		{"watchdog", s.watchdog},
	}
	running := make([]*runningPart, len(parts))
	for i, p := range parts {
		running[i] = p.start(cancel)
	}
	<-ctx.Done()
	s.closeScreen()
	s.log.Info("stopping; pods keep running")
	s.notifier.tell("STOPPING=1")
	if err := stopAll(running); err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// part is something that runs as long as the server does.
type part struct {
	name string
	run  func(context.Context) error
}

// stopLimit is how long a stop may take as a whole; service managers that wait longer than
// 10 s are rare. componentsLimit is the components' share of it.
const (
	stopLimit       = 9500 * time.Millisecond
	componentsLimit = 4 * time.Second
)

// stopAll stops parts one after another, the last started first.
func stopAll(running []*runningPart) error {
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	for _, r := range slices.Backward(running) {
		r.cancel()
		select {
		case <-r.done:
		case <-limit.C:
			return fmt.Errorf("the %s did not stop within %s; leaving it", r.name, stopLimit)
		}
	}
	return nil
}

type runningPart struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// start runs a part with a context of its own. When it ends unasked, failed is called.
func (p part) start(failed context.CancelCauseFunc) *runningPart {
	ctx, cancel := context.WithCancel(context.Background())
	r := &runningPart{name: p.name, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		err := p.run(ctx)
		switch {
		case ctx.Err() != nil: // asked to
		case err == nil:
			failed(fmt.Errorf("%s ended by itself", p.name))
		default:
			failed(fmt.Errorf("%s: %w", p.name, err))
		}
	}()
	return r
}

// boot hands the events of one part to the others, and tells the operator. When it is
// asked to stop, what it returns is no news (see part.start).
func (s *server) boot(ctx context.Context) error {
	if !happened(ctx, s.controlPlane.APIReady()) {
		return nil
	}
	s.log.Info("API ready", "after", s.elapsed())
	client, err := kubernetes.NewForConfig(s.controlPlane.AdminConfig())
	if err != nil {
		return err
	}
	if err := s.authorize(ctx, client, s.plan.selection.Infos()); err != nil {
		return err
	}
	s.board.setSelected(s.live.inForce().selection.Infos())
	close(s.authorized)
	if !happened(ctx, s.agent.Joined()) {
		return nil
	}
	if !s.board.installed(ctx) {
		return nil
	}
	s.components.Provide(sdk.RequiresAPI)
	if !happened(ctx, s.agent.NodeRegistered()) {
		return nil
	}
	s.components.Provide(sdk.RequiresNode)
	if err := describeNode(ctx, client, s.plan.cfg); err != nil {
		return err
	}
	if !happened(ctx, s.agent.NodeReady()) {
		return nil
	}
	s.log.Info("node ready", "node", s.plan.cfg.NodeName, "after", s.elapsed())
	s.notifier.tell("READY=1")
	s.closeScreen()
	s.greet()
	s.settle(ctx)
	<-ctx.Done()
	return nil
}

// greet says where to go from here.
func (s *server) greet() {
	cfg := s.plan.cfg
	fmt.Printf(`
k3m %s: node %s is Ready after %s

  kubeconfig   %s
  look at it   k3m kubectl get nodes
  components   k3m component list

`, shortVersion(), cfg.NodeName, s.elapsed(), cfg.WriteKubeconfig)
}

func (s *server) elapsed() time.Duration { return time.Since(s.start).Round(10 * time.Millisecond) }

// happened waits for the event and is false when ctx ended first.
func happened(ctx context.Context, event <-chan struct{}) bool {
	select {
	case <-event:
		return true
	case <-ctx.Done():
		return false
	}
}

// facts are what a component is told when its Run is called.
func (s *server) facts() sdk.Facts {
	f := s.plan.facts()
	f.ClusterCIDRs, f.ServiceCIDRs = s.plan.cfg.ClusterCIDRs, s.plan.cfg.ServiceCIDRs
	f.ClusterDNS, f.ClusterDomain = s.plan.cfg.ClusterDNS, s.plan.cfg.ClusterDomain
	f.PacketFilter = sdk.PacketFilter(s.filter.Mode)
	f.ResolvConf = s.resolvConf
	return f
}

// identity gets a component's own credentials from the supervisor.
func (s *server) identity(ctx context.Context, info sdk.Info, uid int) (string, error) {
	return s.agent.ComponentKubeconfig(ctx, info.ID(), uid)
}

// servingCertificate gets a component's TLS certificate from the supervisor.
func (s *server) servingCertificate(ctx context.Context, info sdk.Info, uid int) (cert, key string, err error) {
	return s.agent.ComponentServing(ctx, info.ID(), uid)
}

// groups are those of a selected component's certificate on a node; others get none, nor does a
// component that runs on servers get one on another node.
func (s *server) groups(id, node string) ([]string, bool) {
	info, ok := s.allowedOn(id, node)
	return components.Groups(info), ok
}

// services are those that a selected component's TLS certificate on a node is for.
func (s *server) services(id, node string) ([]string, bool) {
	info, ok := s.allowedOn(id, node)
	return info.Services, ok && info.ServingCertificate
}

func (s *server) allowedOn(id, node string) (sdk.Info, bool) {
	info, ok := s.live.find(id)
	return info, ok && (info.Scope == sdk.NodeScope || node == s.plan.cfg.NodeName)
}
