// Package portguard keeps the ports of components closed to everything but pods and the node.
//
// Components serve on the node's pod gateway. Linux answers for a local address on any interface,
// so a machine next to the node could send it packets for the gateway, and the cluster's DNS would
// serve the neighbourhood. The guard drops what comes to such a port unless it comes from the node
// itself, from a pod (of this node or another), or was sent to a node port or a load balancer's
// address and translated by kube-proxy: somebody opened that on purpose. A Service's cluster IP is
// for pods and nodes alone. The guard has one nftables table a node, or one chain of iptables where the node uses that.
//
//	New ── Run (once; blocks)
//	       Set at any time, by any goroutine
//
// What Run leaves when ctx ends stays: a port is closed for as long as its component may live.
package portguard

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/k3m-io/k3m/core/health"
)

// retryPause is how long rules that could not be written wait for the next try, when no change of
// the ports gives a reason for one.
const retryPause = 2 * time.Second

// applyTimeout bounds one change of the rules: nft and iptables take milliseconds, and wait for
// their lock.
const applyTimeout = 20 * time.Second

// healthPart is what the guard is called on the health board.
const healthPart = "component ports"

// Port is where a component serves.
type Port struct {
	Address netip.Addr
	// Protocol is "TCP", "UDP" or "SCTP".
	Protocol string
	Port     uint16
}

// Options are what a Guard needs.
type Options struct {
	// DataDir is the node's: nodes on one host have a table each, named after it.
	DataDir string
	// NFTables chooses between the two packet filters.
	NFTables bool
	// Pods are the addresses of the cluster's pods.
	Pods []netip.Prefix
	// Services are the cluster IPs.
	Services []netip.Prefix
	// Health hears when the rules can't be written; may be nil.
	Health *health.Board
	Logger *slog.Logger
}

// Guard holds the rules.
type Guard struct {
	opts  Options
	write func(ctx context.Context, ports []Port) error
	wake  chan struct{} // holds one token when ports may differ from the rules

	mu    sync.Mutex
	ports []Port
}

// New touches nothing.
func New(o Options) *Guard {
	g := &Guard{opts: o, wake: make(chan struct{}, 1)}
	g.write = g.writeIPTables
	if o.NFTables {
		g.write = g.writeNFTables
	}
	g.wake <- struct{}{} // an earlier core may have left rules for ports that nobody serves now
	return g
}

// Set says which ports are to be guarded from now on, in the place of those before. It returns at
// once.
func (g *Guard) Set(ports []Port) {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b Port) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	ports = slices.Compact(ports)
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.Equal(ports, g.ports) {
		return
	}
	g.ports = ports
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Run writes the rules, whenever the ports change, until ctx ends; it returns nil then.
func (g *Guard) Run(ctx context.Context) error {
	var retry <-chan time.Time
	for {
		select {
		case <-g.wake:
		case <-retry:
		case <-ctx.Done():
			return nil
		}
		retry = nil
		g.mu.Lock()
		ports := g.ports
		g.mu.Unlock()
		applyCtx, cancel := context.WithTimeout(ctx, applyTimeout)
		err := g.write(applyCtx, ports)
		cancel()
		if err == nil {
			g.opts.Health.Remove(healthPart)
			continue
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // an error would be that of the stop
		}
		g.opts.Logger.Warn("components can be reached from outside; trying again", "error", err)
		g.opts.Health.Set(health.Condition{
			Part: healthPart, State: health.Degraded, Message: "components can be reached from outside: " + err.Error(),
			Fix: "Close the node's pod gateway to its neighbours with a firewall of your own, or mend what keeps k3m from it.",
		})
		retry = time.After(retryPause)
	}
}

// Remove removes the rules of the node with a data directory, of either kind. For the node's
// removal; it is no error when there are none.
func Remove(ctx context.Context, dataDir string) error {
	err := errors.Join(removeNFTables(ctx, dataDir), removeIPTables(dataDir))
	if err != nil {
		return fmt.Errorf("remove the rules that guard component ports: %w", err)
	}
	return nil
}

// suffix tells a node's rules from those of another node of the host.
func suffix(dataDir string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(dataDir)))
	return hex.EncodeToString(sum[:4])
}
