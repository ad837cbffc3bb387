package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/agent"
	"github.com/k3m-io/k3m/core/clustercomponents"
	"github.com/k3m-io/k3m/core/componentmetrics"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/portguard"
	"github.com/k3m-io/k3m/core/ports"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// board is what the API shows of the components: what this node says of its own, and what the
// cluster makes of all nodes' words.
type board struct {
	ready chan struct{} // closed when the API serves the kinds

	mu       sync.Mutex
	cluster  *clustercomponents.Cluster // nil before the API is ready
	node     nodeWriter                 // nil before the node has joined
	status   nodestatus.NodeStatus      // what the node says, or will say
	selected []sdk.Info
	chosen   bool // setSelected was called
	owned    map[string][]json.RawMessage
}

// nodeWriter writes what a node says of itself: a clustercomponents.Node.
type nodeWriter interface {
	Update(change func(*nodestatus.NodeStatus))
}

func newBoard() *board { return &board{ready: make(chan struct{})} }

// installPatience is how long components that need the API wait for the kinds to be served. It
// takes a tenth of a second; where it fails, they are better off without.
const installPatience = 3 * time.Second

// installed waits for the API to serve the kinds, within reason; false means that ctx ended.
func (b *board) installed(ctx context.Context) bool {
	patience := time.NewTimer(installPatience)
	defer patience.Stop()
	select {
	case <-b.ready:
	case <-patience.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// setSelected says which components the cluster has from now on: Components, endpoints and
// objects of others are removed.
func (b *board) setSelected(infos []sdk.Info) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.selected, b.chosen = infos, true
	if b.cluster != nil {
		b.cluster.SetSelected(infos)
	}
}

// setOwned says what the objects are that components have made up.
func (b *board) setOwned(owned map[string][]json.RawMessage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owned = owned
	if b.cluster != nil {
		b.cluster.SetOwned(owned)
	}
}

// updateNode changes what the node says of itself, at once or when it has joined. change replaces
// slices and does not keep the pointer.
func (b *board) updateNode(change func(*nodestatus.NodeStatus)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.status)
	b.tell()
}

// join hands on what the node says, to node from now on. Nobody else updates node: the board replaces
// all of it.
func (b *board) join(node nodeWriter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.node = node
	b.tell()
}

// setPorts takes note of the node's ports that Services may not have.
func (b *board) setPorts(held []nodestatus.PortHolder) {
	b.updateNode(func(st *nodestatus.NodeStatus) { st.Ports = held })
}

// tell hands on what the node says. The lock is held.
func (b *board) tell() {
	if b.node != nil {
		status := b.status
		b.node.Update(func(s *nodestatus.NodeStatus) { *s = status })
	}
}

// withdraw takes back the endpoints of a node whose components have stopped.
func (b *board) withdraw(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cluster != nil {
		b.cluster.Withdraw(node)
	}
}

// keepBoard runs both halves of the board, and the guard of the ports that are on it, until ctx ends.
// It ends after the components do: the node's half says so, and then the cluster's withdraws their
// endpoints.
func (s *server) keepBoard(ctx context.Context) error {
	if err := componentmetrics.Register(s.metricSources, s.log); err != nil {
		return err
	}
	halves, ctx := errgroup.WithContext(ctx)
	clusterCtx, endCluster := context.WithCancel(context.WithoutCancel(ctx))
	halves.Go(func() error { return s.keepCluster(clusterCtx) })
	halves.Go(func() error {
		defer endCluster()
		err := s.keepNode(ctx)
		s.board.withdraw(s.plan.cfg.NodeName)
		return err
	})
	halves.Go(func() error { return s.guardPorts(ctx) })
	return halves.Wait()
}

func (s *server) keepCluster(ctx context.Context) error {
	if !happened(ctx, s.controlPlane.APIReady()) {
		return nil
	}
	ca, err := os.ReadFile(controlplane.ServerCAFile(s.plan.cfg.DataDir))
	if err != nil {
		return fmt.Errorf("read the server's authority: %w", err)
	}
	cluster, err := clustercomponents.New(clustercomponents.Options{
		Config: s.controlPlane.AdminConfig(), ServerCA: ca,
		ClusterDNS: s.plan.cfg.ClusterDNS, ClusterDomain: s.plan.cfg.ClusterDomain,
		Health: s.health, Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.board.mu.Lock()
	s.board.cluster = cluster
	if s.board.chosen {
		cluster.SetSelected(s.board.selected)
	}
	cluster.SetOwned(s.board.owned)
	s.board.mu.Unlock()
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error {
		if happened(ctx, cluster.Installed()) {
			close(s.board.ready)
		}
		return nil
	})
	running.Go(func() error { return cluster.Run(ctx) })
	return running.Wait()
}

// keepNode tells the cluster how the node's components fare, with the node's own rights.
func (s *server) keepNode(ctx context.Context) error {
	if !happened(ctx, s.agent.Joined()) || !happened(ctx, s.board.ready) {
		return nil
	}
	config, err := s.agent.NodeConfig()
	if err != nil {
		return err
	}
	node, err := clustercomponents.NewNode(clustercomponents.NodeOptions{Config: config, Name: s.plan.cfg.NodeName, Logger: s.log})
	if err != nil {
		return err
	}
	s.board.join(node)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("look at the node's ports: %w", err)
	}
	halves, ctx := errgroup.WithContext(ctx)
	nodeCtx, endNode := context.WithCancel(context.WithoutCancel(ctx))
	halves.Go(func() error { return node.Run(nodeCtx) })
	halves.Go(func() error {
		return ports.Watch(ctx, ports.Options{
			Client: client, NodeIPs: s.plan.cfg.NodeIPs, Logger: s.log, Report: s.board.setPorts,
		})
	})
	halves.Go(func() error {
		defer endNode()
		for range s.components.Watch(ctx) {
			s.tellComponents()
			s.board.setOwned(s.components.Owned())
		}
		s.tellComponents() // the last word: they have stopped
		return nil
	})
	return halves.Wait()
}

// tellComponents has the node say how its components fare.
func (s *server) tellComponents() {
	all, gateways := s.componentStates(), texts(s.components.PodGateways())
	s.board.updateNode(func(st *nodestatus.NodeStatus) {
		st.Components, st.PodGateways, st.NodeIPs = all, gateways, texts(s.plan.cfg.NodeIPs)
	})
}

// guardPorts keeps the ports of the node's components closed to the outside.
func (s *server) guardPorts(ctx context.Context) error {
	guard := portguard.New(portguard.Options{
		DataDir: s.plan.cfg.DataDir, NFTables: s.filter.Mode == agent.ModeNFTables, Pods: s.plan.cfg.ClusterCIDRs, Services: s.plan.cfg.ServiceCIDRs,
		Health: s.health, Logger: s.log,
	})
	halves, ctx := errgroup.WithContext(ctx)
	halves.Go(func() error { return guard.Run(ctx) })
	halves.Go(func() error {
		known := false
		for range s.components.Watch(ctx) {
			ports := servedPorts(s.components.Served())
			// The rules of an earlier core are good until it is known what this one serves.
			if known = known || len(ports) > 0 || !s.someStart(); known {
				guard.Set(ports)
			}
		}
		return nil
	})
	return halves.Wait()
}

// someStart tells whether a component that has Services has not come up yet.
func (s *server) someStart() bool {
	return slices.ContainsFunc(s.components.Status(), func(st components.ComponentStatus) bool {
		info, _ := s.live.find(st.ID)
		return len(info.Services) > 0 && slices.Contains([]components.State{components.Launching, components.Waiting, components.Starting}, st.State)
	})
}

// servedPorts are the ports of endpoints.
func servedPorts(endpoints []nodestatus.Endpoint) []portguard.Port {
	var out []portguard.Port
	for _, e := range endpoints {
		for _, text := range e.Addresses {
			address, err := netip.ParseAddr(text)
			if err != nil {
				continue // the supervisor made the text of an address
			}
			for _, p := range e.Ports {
				out = append(out, portguard.Port{Address: address, Protocol: p.Protocol, Port: p.Port})
			}
		}
	}
	return out
}

// metricSources are the components whose metrics the node serves.
func (s *server) metricSources() []componentmetrics.Source {
	usage := map[string]components.Usage{}
	all, err := s.components.Usage()
	if err != nil {
		s.log.Debug("the use of components can't be measured", "error", err)
	}
	for _, u := range all {
		usage[u.ID] = u
	}
	var out []componentmetrics.Source
	for _, st := range s.components.Status() {
		out = append(out, componentmetrics.Source{
			ID: st.ID, Up: st.State == components.Ready, Restarts: st.Restarts,
			MemoryBytes: usage[st.ID].PSS, CPU: usage[st.ID].CPU, Text: s.components.Metrics(st.ID),
		})
	}
	return out
}

// componentStates are the node's components in the API's words.
func (s *server) componentStates() []nodestatus.ComponentState {
	var out []nodestatus.ComponentState
	for _, st := range s.components.Status() {
		info, _ := s.live.find(st.ID)
		out = append(out, nodestatus.ComponentState{
			ID: st.ID, Version: st.Version, State: string(st.State),
			Serving: st.State == components.Ready || st.State == components.Degraded, Reason: st.Reason,
			Since: st.Since.UTC(), Restarts: st.Restarts,
			LastError: st.LastError, LastErrorTime: st.LastErrorTime.UTC(),
			Labels: info.Labels, Endpoints: st.Endpoints,
		})
	}
	return out
}

func texts(addresses []netip.Addr) []string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return out
}
